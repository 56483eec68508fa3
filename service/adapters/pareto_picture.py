"""Picture of a sweep with several objectives: its Pareto front, and the points behind it."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from service.domain import Trial
from service.plan import Objective
from service.points import Result, ranked
from service.spec import SweepSpec

FRONT, BEHIND = "#4477aa", "#bbbbbb"
"""From Paul Tol's bright scheme, which the colour-blind can tell apart."""
MOST_LABELS = 12
"""With more points than this on the front their labels would lie on one another."""


def pareto_figures(spec: SweepSpec, trials: Sequence[Trial]) -> dict[str, Figure]:
    """The figure by name; none where there is but one objective.

    A panel for each objective beside the first one. With more than two, a point may be on the front and look beaten in
    a panel: it is better in another one.

    Args:
        spec: says what was compared.
        trials: the completed ones.
    """
    if len(spec.objectives) == 1:
        return {}
    modes = [objective.mode for objective in spec.objectives]
    results = ranked(trials, modes=modes, aggregate=spec.search.aggregate)
    panels = len(spec.objectives) - 1
    figure = Figure(figsize=(1.5 + 5 * panels, 5), layout="constrained")
    figure.suptitle(f"{spec.name}: Pareto front")
    for i, axes in enumerate(figure.subplots(1, panels, squeeze=False).flat, 1):
        if results:
            _panel(axes, results, i, step=panels == 1, first=spec.objectives[0].mode)
            axes.set(xlabel=_label(spec.objectives[0]), ylabel=_label(spec.objectives[i]))
            axes.grid(alpha=0.3)
        else:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no trial has completed", ha="center", va="center", transform=axes.transAxes)
    if results:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return {"pareto_front": figure}


def _panel(axes: Axes, results: Sequence[Result], objective: int, *, step: bool, first: str) -> None:
    front = [result for result in results if result.front == 1]
    behind = [result for result in results if result.front > 1]
    for chosen, colour, size, what in ((behind, BEHIND, 16, "beaten"), (front, FRONT, 36, "on the front")):
        if chosen:
            x, y = zip(*((one.values[0], one.values[objective]) for one in chosen), strict=True)
            axes.scatter(x, y, s=size, color=colour, label=f"{len(chosen)} {what}", zorder=2)
    if step:  # what lies between two points of the front is beaten by one of them up to the corner
        places = sorted((one.values[0], one.values[objective]) for one in front)
        axes.step(
            *zip(*places, strict=True), where="post" if first == "min" else "pre", color=FRONT, alpha=0.5, zorder=1
        )
    if len(front) <= MOST_LABELS:
        for one in front:
            place = (one.values[0], one.values[objective])
            axes.annotate(f"{one.number}", place, xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.margins(0.08)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _label(objective: Objective) -> str:
    return f"{objective.metric} ({'more' if objective.mode == 'max' else 'less'} is better)"
