"""Pictures of a sweep as PNG files: learning curves, parallel coordinates, slices and importances.

Figures are made without pyplot, so there is no current figure and no display. Every picture can be drawn of any number
of trials; where there is nothing to see, it says so.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search_spaces import Choice, Float, Int, same
from service.adapters.learning_rates import learning_rate_figures
from service.adapters.pareto_picture import pareto_figures
from service.adapters.population_picture import population_figure
from service.domain import Measurement, Trial, TrialState
from service.spec import SweepSpec

COLOURS = {
    TrialState.COMPLETED: "#4477aa",
    TrialState.PRUNED: "#ccbb44",
    TrialState.STOPPED: "#999999",
    TrialState.FAILED: "#ee6677",
    TrialState.RUNNING: "#66ccee",
}
"""From Paul Tol's bright scheme, which the colour-blind can tell apart."""
BEST = "#222222"
COLOUR_MAP = "viridis"
SHELF = -0.15
"""Height of a parameter that is not active, on an axis from 0 to 1."""
LABEL_LENGTH = 22
"""Longer values are cut in labels."""


def draw(folder: Path, figures: Mapping[str, Figure]) -> None:
    """Writes each figure as `<name>.png` into the folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)


def sweep_figures(
    spec: SweepSpec, trials: Sequence[Trial], measurements: Sequence[Measurement], importances: Mapping[str, float]
) -> dict[str, Figure]:
    """The four figures of a sweep, by name, and those of several objectives and of learning rates where there are any.

    Of a population, whose values say nothing of single points, the learning curves and its settings over time.

    Args:
        spec: says what was searched and what was compared.
        trials: the sweep's.
        measurements: theirs, by trial and step.
        importances: share of each parameter in the spread of the objective, largest first; may be empty.
    """
    completed = [trial for trial in trials if trial.state is TrialState.COMPLETED]
    if spec.search.pbt is not None:
        settings = population_figure(spec.name, spec.space, trials, _best(spec, trials))
        return {"learning_curves": _learning_curves(spec, trials, measurements), "settings": settings}
    return {
        "learning_curves": _learning_curves(spec, trials, measurements),
        "parallel_coordinates": _parallel_coordinates(spec, completed),
        "slices": _slices(spec, completed),
        "importances": _importances(spec, importances),
        **pareto_figures(spec, completed),
        **learning_rate_figures(spec, trials, measurements),
    }


def _learning_curves(spec: SweepSpec, trials: Sequence[Trial], measurements: Sequence[Measurement]) -> Figure:
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for measurement in measurements:
        value = measurement.metrics.get(spec.objective.metric, math.nan)
        if math.isfinite(value):
            curves[measurement.trial_id].append((measurement.step, value))
    figure, axes = _figure(9, 5, f"{spec.name}: learning curves")
    if not curves:
        return _empty(figure, axes, f"no trial has measured {spec.objective.metric}")
    handles = []
    for state, colour in COLOURS.items():
        chosen = [trial for trial in trials if trial.state is state and trial.id in curves]
        if chosen:
            lines = [curves[trial.id] for trial in chosen]
            alpha = max(0.25, min(0.9, 20 / len(curves)))
            axes.add_collection(LineCollection(lines, colors=colour, alpha=alpha, linewidths=1.2))
            steps, ends = zip(*(line[-1] for line in lines), strict=True)
            axes.scatter(steps, ends, s=10, color=colour, alpha=alpha)
            handles.append(Line2D([], [], color=colour, label=f"{len(chosen)} {state}"))
    best = _best(spec, trials)
    if best is not None and best.id in curves:
        axes.plot(*zip(*curves[best.id], strict=True), color=BEST, linewidth=2)
        handles.append(Line2D([], [], color=BEST, linewidth=2, label=f"best: trial {best.number}"))
    axes.autoscale_view()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel=spec.objective.metric)
    axes.grid(alpha=0.3)
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _parallel_coordinates(spec: SweepSpec, trials: Sequence[Trial]) -> Figure:
    names = list(spec.space)
    figure, axes = _figure(3 + 1.9 * (len(names) + 1), 5.5, f"{spec.name}: parallel coordinates")
    if not trials:
        return _empty(figure, axes, "no trial has completed")
    values = [_value(trial) for trial in trials]
    low, high = _widened(min(values), max(values))
    scales = [_Scale(spec.space[name]) for name in names]
    mappable = ScalarMappable(Normalize(low, high), COLOUR_MAP)
    order = np.argsort(values) if spec.objective.mode == "max" else np.argsort(values)[::-1]  # the best on top
    lines = [
        [
            *((i, scale.place(trials[k].point[name])) if name in trials[k].point else (i, SHELF)
              for i, (name, scale) in enumerate(zip(names, scales, strict=True))),
            (len(names), (values[k] - low) / (high - low)),
        ]
        for k in order
    ]  # fmt: skip
    alpha = max(0.2, min(0.8, 40 / len(trials)))
    axes.add_collection(LineCollection(lines, colors=[mappable.to_rgba(values[k]) for k in order], alpha=alpha))
    for column, (name, scale) in enumerate(zip(names, scales, strict=True)):
        missing = any(name not in trial.point for trial in trials)
        _upright(axes, column, [*scale.ticks(), *([(SHELF, "not active")] if missing else [])])
    _upright(axes, len(names), [(height, f"{low + height * (high - low):.4g}") for height in (0, 0.25, 0.5, 0.75, 1)])
    axes.set(xlim=(-0.3, len(names) + 0.6), yticks=[])
    axes.set_xticks(range(len(names) + 1), [*map(_wrapped, names), _wrapped(spec.objective.metric)])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(mappable, ax=axes, label=spec.objective.metric, pad=0.02)
    return figure


def _slices(spec: SweepSpec, trials: Sequence[Trial]) -> Figure:
    names = list(spec.space)
    if not trials or not names:
        figure, axes = _figure(6, 4, f"{spec.name}: slices")
        return _empty(figure, axes, "no trial has completed" if names else "nothing was searched")
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(1.2 + 3.8 * columns, 0.8 + 3.4 * rows), layout="constrained")
    figure.suptitle(f"{spec.name}: slices")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    numbers = Normalize(0, max(1, *(trial.number for trial in trials)))
    used = []
    for panel, name in zip(panels, names, strict=False):
        scale = _Scale(spec.space[name])
        active = [trial for trial in trials if name in trial.point]
        panel.scatter(
            [scale.place(trial.point[name]) for trial in active],
            [_value(trial) for trial in active],
            c=[trial.number for trial in active],
            norm=numbers,
            cmap=COLOUR_MAP,
            s=18,
        )
        places, labels = zip(*scale.ticks(), strict=True)
        long = sum(map(len, labels)) > 36
        panel.set_xticks(places, labels, fontsize=8, rotation=20 if long else 0, ha="right" if long else "center")
        panel.set(xlabel=name, xlim=(-0.08, 1.08))
        panel.grid(alpha=0.3)
        used.append(panel)
    for panel in used[::columns]:
        panel.set_ylabel(spec.objective.metric)
    for panel in list(panels)[len(names) :]:
        panel.set_visible(False)
    figure.colorbar(
        ScalarMappable(numbers, COLOUR_MAP), ax=used, label="trial", shrink=0.8, ticks=MaxNLocator(integer=True)
    )
    return figure


def _importances(spec: SweepSpec, importances: Mapping[str, float]) -> Figure:
    figure, axes = _figure(8, 1.8 + 0.45 * max(3, len(importances)), f"{spec.name}: importances")
    if not importances:
        return _empty(figure, axes, "too few completed trials, or too much alike, to tell what matters")
    names = list(importances)[::-1]
    bars = axes.barh(names, [importances[name] for name in names], color=COLOURS[TrialState.COMPLETED])
    axes.bar_label(bars, labels=[f"{importances[name]:.0%}" for name in names], padding=4)
    axes.set(xlim=(0, 1.1), xlabel=f"share in the spread of {spec.objective.metric}")
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    return figure


class _Scale:
    """Where the values of a parameter are on an upright axis from 0 to 1."""

    def __init__(self, parameter: Float | Int | Choice) -> None:
        self._parameter = parameter
        if isinstance(parameter, Choice):
            self._low, self._high = _widened(0, len(parameter.values) - 1)
        else:
            self._low, self._high = _widened(*map(self._bent, (parameter.low, parameter.high)))

    def place(self, value: Any) -> float:
        """Height of a value."""
        bent = _index(self._parameter, value) if isinstance(self._parameter, Choice) else self._bent(value)
        return (bent - self._low) / (self._high - self._low)

    def ticks(self) -> list[tuple[float, str]]:
        """Heights and labels."""
        parameter = self._parameter
        if isinstance(parameter, Choice):
            return [(self.place(value), _label(value)) for value in parameter.values]
        heights = np.linspace(0, 1, 5) if parameter.high > parameter.low else np.array([0.5])
        bent = self._low + heights * (self._high - self._low)
        numbers = np.exp(bent) if parameter.log else bent
        if isinstance(parameter, Int):
            numbers = np.unique(np.clip(np.round(numbers), parameter.low, parameter.high))
        return [(self.place(number), f"{number:.3g}") for number in numbers]

    def _bent(self, number: float) -> float:
        logarithmic = not isinstance(self._parameter, Choice) and self._parameter.log
        return math.log(number) if logarithmic else float(number)


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _empty(figure: Figure, axes: Axes, why: str) -> Figure:
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color="#555555")
    return figure


def _upright(axes: Axes, column: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(column, color="#bbbbbb", linewidth=1, zorder=0)
    for height, label in ticks:
        axes.plot([column - 0.02, column + 0.02], [height, height], color="#888888", linewidth=1)
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
        axes.text(column + 0.05, height, label, va="center", fontsize=8, bbox=box)


def _best(spec: SweepSpec, trials: Sequence[Trial]) -> Trial | None:
    completed = [trial for trial in trials if trial.state is TrialState.COMPLETED]
    choose = max if spec.objective.mode == "max" else min
    return choose(completed, key=_value, default=None)


def _value(trial: Trial) -> float:
    assert trial.values, "a completed trial has its values"
    return trial.values[0]


def _index(parameter: Choice, value: Any) -> int:
    return next(i for i, own in enumerate(parameter.values) if same(own, value))


def _label(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 1] + "…"


def _wrapped(name: str) -> str:
    """`train.learning_rate` in two lines, so that names side by side do not touch."""
    return name.replace(".", ".\n", 1).replace("/", "/\n", 1)


def _widened(low: float, high: float) -> tuple[float, float]:
    """The range, or one around it where it is a single number."""
    if high > low:
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, low + room
