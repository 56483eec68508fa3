"""Pictures of a sweep over learning rates: how wide is the range at which each network works, and how does it end?

O. Vila Clarà, "The effect of spatial RNNs on neural network feature maps": learning-rate robustness (figures 4.6 to
4.11), gradients where training settles (figure 4.12) and the validation loss (figure 4.16).
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.domain import Measurement, Trial, TrialState
from service.spec import SweepSpec

RATE = "train.learning_rate"
MOST_LINES = 12
"""With more networks than this a picture of lines says nothing."""
FEWEST_RATES = 3
"""Two are no curve."""
GRADIENT, MEAN_ABSOLUTE, TRUNCATED = "gradient/", "/mean_absolute", "gradient/truncated"

Curves = Mapping[str, Mapping[float, Sequence[float]]]
"""By network, by learning rate: a number a trial."""


def learning_rate_figures(
    spec: SweepSpec, trials: Sequence[Trial], measurements: Sequence[Measurement]
) -> dict[str, Figure]:
    """The figures by name; none unless some network was tried at several learning rates.

    Args:
        spec: says what was searched and what was compared.
        trials: the sweep's.
        measurements: theirs, by trial and step.
    """
    if RATE not in spec.space:
        return {}
    last: dict[str, Mapping[str, float]] = {}
    for measurement in sorted(measurements, key=lambda one: one.step):
        last[measurement.trial_id] = measurement.metrics
    ended = [trial for trial in trials if RATE in trial.point and trial.state.final and trial.id in last]
    others = [name for name, parameter in spec.space.items() if name != RATE and len(parameter.extremes()) > 1]
    networks = {trial.id: _network(trial, others) for trial in ended}

    def curves(numbers: Mapping[str, float]) -> Curves:
        return _curves([(networks[trial.id], trial, numbers[trial.id]) for trial in ended if trial.id in numbers])

    values = curves({t.id: t.values[0] for t in ended if t.state is TrialState.COMPLETED and t.values})
    if not 0 < len(values) <= MOST_LINES or max(map(len, values.values())) < FEWEST_RATES:
        return {}
    figures = {"learning_rate_robustness": _robustness(spec, values, _failed(ended), curves(_of(last, TRUNCATED)))}
    losses = curves(_of(last, "validation/loss"))
    if losses:
        figure, axes = _figure(f"{spec.name}: loss by learning rate", "validation/loss of the last step")
        _lines(axes, losses)
        axes.set_yscale("log")
        figure.legend(loc="outside right upper", frameon=False)
        figures["learning_rate_loss"] = figure
    names = {name for metrics in last.values() for name in metrics}
    layers = {name for name in names if name.startswith(GRADIENT) and name.endswith(MEAN_ABSOLUTE)}
    settled: dict[str, dict[str, Mapping[float, Sequence[float]]]] = defaultdict(dict)
    for layer in sorted(layers):
        for network, rates in curves(_of(last, layer, above=0)).items():
            settled[network][layer.removeprefix(GRADIENT).removesuffix(MEAN_ABSOLUTE)] = rates
    if settled:
        figures["learning_rate_gradients"] = _gradients(spec, settled)
    return figures


def _robustness(spec: SweepSpec, values: Curves, failed: Sequence[float], truncated: Curves) -> Figure:
    figure, axes = _figure(f"{spec.name}: learning-rate robustness", spec.objective.metric)
    _lines(axes, values)
    for network, rates in truncated.items():
        told = [rate for rate, some in rates.items() if statistics.mean(some) > 0.5 and rate in values.get(network, {})]
        heights = [statistics.mean(values[network][rate]) for rate in told]
        axes.scatter(
            told, heights, s=110, facecolors="none", edgecolors="#222222", label=_once(axes, "truncated range")
        )
    if failed:
        bottom = axes.get_ylim()[0]
        axes.scatter(failed, [bottom] * len(failed), marker="x", color="#ee6677", label="diverged", clip_on=False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _gradients(spec: SweepSpec, settled: Mapping[str, Curves]) -> Figure:
    columns = min(2, len(settled))
    rows = math.ceil(len(settled) / columns)
    figure = Figure(figsize=(2 + 5 * columns, 0.6 + 3.6 * rows), layout="constrained")
    figure.suptitle(f"{spec.name}: gradients in the last step")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for panel, (network, layers) in zip(panels, settled.items(), strict=False):
        _lines(panel, layers)
        panel.set_title(network, fontsize=9)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set(xlabel=RATE, ylabel="mean absolute value")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=7)
    for panel in panels[len(settled) :]:
        panel.set_visible(False)
    return figure


def _lines(axes: Axes, curves: Curves) -> None:
    """Means over the trials at each rate, in a line; their range where there are several."""
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for number, (network, rates) in enumerate(curves.items()):
        ordered = sorted(rates)
        means = [statistics.mean(rates[rate]) for rate in ordered]
        # Pairs of one hue and two strengths, the strong ones first.
        colour = colours[2 * number % 20 + number // 10]
        axes.plot(ordered, means, marker="o", markersize=4, linewidth=1.5, color=colour, label=network)
        low, high = ([pick(rates[rate]) for rate in ordered] for pick in (min, max))
        axes.fill_between(ordered, low, high, color=colour, alpha=0.15, linewidth=0)


def _curves(values: Sequence[tuple[str, Trial, float]]) -> Curves:
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for network, trial, value in values:
        found[network][float(trial.point[RATE])].append(value)
    return {network: found[network] for network in sorted(found)}


def _of(last: Mapping[str, Mapping[str, float]], name: str, *, above: float = -math.inf) -> dict[str, float]:
    """A metric by trial, where it is a finite number and above a bound."""
    return {
        trial: metrics[name] for trial, metrics in last.items() if name in metrics and above < metrics[name] < math.inf
    }


def _failed(trials: Sequence[Trial]) -> list[float]:
    return [float(trial.point[RATE]) for trial in trials if trial.state is TrialState.FAILED]


def _network(trial: Trial, names: Sequence[str]) -> str:
    """What else was searched, in a few words."""
    others = [(name.split(".")[-1], trial.point[name]) for name in names if name in trial.point]
    return (
        ", ".join(f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in others) or "all"
    )


def _figure(title: str, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xscale("log")
    axes.set(xlabel=RATE, ylabel=label)
    axes.grid(alpha=0.3)
    return figure, axes


def _once(axes: Axes, label: str) -> str:
    """The label, or none where it is in the legend already."""
    return "_nolegend_" if label in axes.get_legend_handles_labels()[1] else label
