"""A picture of a population: its trials' settings over time, and those that the best trial's weights have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search_spaces import Choice, Float, Int, SearchSpace, same
from service.domain import Trial

OTHERS, BEST, COPY = "#4477aa", "#222222", "#ee6677"


class Stretch(NamedTuple):
    """Steps that were trained with the same settings."""

    after: int
    until: int
    point: Mapping[str, Any]


def course(trial: Trial) -> list[Stretch]:
    """The trial's settings over its steps."""
    found, after, point = [], 0, trial.exploits[0].before if trial.exploits else trial.point
    for exploit in trial.exploits:
        found.append(Stretch(after, exploit.step, point))
        after, point = exploit.step, exploit.point
    return [*found, Stretch(after, trial.step, point)]


def ancestry(trial: Trial, trials: Mapping[str, Trial]) -> list[Stretch]:
    """The settings that the trial's weights were trained with, whichever trials they were in; `trials` by id."""
    until, found = trial.step, []
    while True:
        before = [exploit for exploit in trial.exploits if exploit.step < until]
        point = [stretch.point for stretch in course(trial) if stretch.after < until][-1]
        found.append(Stretch(before[-1].step if before else 0, until, point))
        if not before:
            return found[::-1]
        until, trial = before[-1].step, trials[before[-1].source]


def population_figure(name: str, space: SearchSpace, trials: Sequence[Trial], best: Trial | None) -> Figure:
    """A panel a setting, over the steps.

    Args:
        name: of the sweep.
        space: what its trials change.
        trials: all of them.
        best: whose weights' way is drawn over the others; None: no trial has completed.
    """
    figure = Figure(figsize=(9, 1 + 2.4 * len(space)), layout="constrained")
    figure.suptitle(f"{name}: settings over time")
    panels = figure.subplots(len(space), sharex=True, squeeze=False)[:, 0]
    by_id = {trial.id: trial for trial in trials}
    for (setting, parameter), axes in zip(space.items(), panels, strict=True):
        lines = [_line(course(trial), setting, parameter) for trial in trials if trial.step]
        axes.add_collection(LineCollection(lines, colors=OTHERS, alpha=0.5, linewidths=1.2))
        copies = [exploit for trial in trials for exploit in trial.exploits]
        heights = [_height(parameter, exploit.point[setting]) for exploit in copies]
        axes.scatter([exploit.step for exploit in copies], heights, s=14, color=COPY, zorder=3)
        if best is not None:
            axes.plot(*zip(*_line(ancestry(best, by_id), setting, parameter), strict=True), color=BEST, linewidth=2)
        if isinstance(parameter, Choice):
            axes.set_yticks(range(len(parameter.values)), [str(value) for value in parameter.values])
            axes.set_ylim(-0.5, len(parameter.values) - 0.5)
        elif parameter.log:
            axes.set_yscale("log")
            axes.set_ylim(parameter.low / 1.1, parameter.high * 1.1)
        else:
            room = 0.05 * (parameter.high - parameter.low) or 0.5
            axes.set_ylim(parameter.low - room, parameter.high + room)
        axes.set(ylabel=setting.replace(".", ".\n", 1))
        axes.autoscale_view(scaley=False)
        axes.grid(alpha=0.3)
    panels[-1].set(xlabel="step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [
        Line2D([], [], color=OTHERS, label="trials"),
        Line2D([], [], color=COPY, marker="o", linestyle="", markersize=4, label="went on from another"),
        *([Line2D([], [], color=BEST, linewidth=2, label=f"weights of trial {best.number}")] if best else []),
    ]
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _line(stretches: Sequence[Stretch], setting: str, parameter: Float | Int | Choice) -> list[tuple[float, float]]:
    return [
        (step, _height(parameter, stretch.point[setting]))
        for stretch in stretches
        for step in (stretch.after, stretch.until)
    ]


def _height(parameter: Float | Int | Choice, value: Any) -> float:
    if isinstance(parameter, Choice):
        return float(next(i for i, own in enumerate(parameter.values) if same(own, value)))
    return float(value)
