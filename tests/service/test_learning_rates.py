"""Pictures of sweeps over learning rates."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from search_spaces import study
from service.adapters.learning_rates import learning_rate_figures
from service.adapters.pictures import draw
from service.domain import Measurement, Trial, TrialState
from service.spec import SweepSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = {"learning_rate_robustness", "learning_rate_loss", "learning_rate_gradients"}


def robustness() -> tuple[SweepSpec, list[Trial], list[Measurement]]:
    """The small study of figure 4.6, as if fully connected networks stopped at a rate of 3 and recurrent ones never."""
    spec = SweepSpec.from_dict(study("spatial-rnn-figure-4-6", small=True))
    trials, measurements = list[Trial](), list[Measurement]()
    for point in spec.space.grid():
        for repeat in range(spec.search.repeats):
            number, rate = len(trials), point["train.learning_rate"]
            broken = point["model.layer"] == "fc" and rate > 3
            value = 0.9 - 0.02 * abs(math.log10(rate)) - 0.01 * repeat - (0.2 if rate > 3 else 0)
            trial: dict[str, Any] = {"id": f"s-{number}", "sweep_id": "s", "number": number, "repeat": repeat}
            state = TrialState.FAILED if broken else TrialState.COMPLETED
            values = None if broken else (value,)
            trials.append(Trial(**trial, point=point, state=state, values=values, created_at=NOW))
            metrics = {
                "validation/accuracy": value,
                "validation/loss": math.nan if broken else rate,
                "gradient/fc1": 5.0,
                "gradient/fc1/mean_absolute": 0.0 if rate > 3 else 0.01 / rate,
                "gradient/head/mean_absolute": 0.1,
                "gradient/head/mean_absolute/peak": 1.0,
                "gradient/truncated": float(rate > 3),
            }
            measurements.append(Measurement(trial_id=trial["id"], step=1, at=NOW, metrics=metrics))
    return spec, trials, measurements


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The lines of a figure's first axes, by label."""
    return {str(line.get_label()): list(map(tuple, line.get_xydata())) for line in figure.axes[0].get_lines()}


def test_a_line_a_network_over_a_logarithmic_axis() -> None:
    """Means over the repeats at each rate; rates at which all trials failed have none."""
    spec, trials, measurements = robustness()
    figures = learning_rate_figures(spec, trials, measurements)
    assert set(figures) == NAMES
    drawn = lines(figures["learning_rate_robustness"])
    assert len(drawn) == 4
    assert figures["learning_rate_robustness"].axes[0].get_xscale() == "log"
    recurrent, connected = (
        next(line for label, line in drawn.items() if "depth 2" in label and layer in label) for layer in ("lstm", "fc")
    )
    assert [rate for rate, _ in recurrent] == [0.01, 0.1, 1, 10, 100, 1000]
    assert [rate for rate, _ in connected] == [0.01, 0.1, 1]
    assert recurrent[2][1] == pytest.approx(0.89)
    losses = lines(figures["learning_rate_loss"])
    assert all(rate == pytest.approx(loss) for line in losses.values() for rate, loss in line)
    settled = lines(figures["learning_rate_gradients"])
    assert set(settled) == {"fc1", "head"}
    assert sum(settled["fc1"], ()) == pytest.approx((0.01, 1.0, 0.1, 0.1, 1.0, 0.01))


def marks(figure: Figure, *, diverged: bool) -> list[tuple[float, float]]:
    """Where a figure's first axes has crosses, or rings."""
    found = [one for one in figure.axes[0].collections if isinstance(one, PathCollection)]
    return [tuple(at) for one in found if (one.get_label() == "diverged") is diverged for at in one.get_offsets()]


def test_what_diverged_and_what_was_truncated_is_marked() -> None:
    """A cross below the lines for each failed trial at its rate, a ring on a line where gradients were truncated."""
    spec, trials, measurements = robustness()
    figure = learning_rate_figures(spec, trials, measurements)["learning_rate_robustness"]
    failed = [trial.point["train.learning_rate"] for trial in trials if trial.state is TrialState.FAILED]
    assert set(failed) == {10, 100, 1000}
    crosses = marks(figure, diverged=True)
    assert sorted(rate for rate, _ in crosses) == sorted(failed)
    points = [(label, at) for label, line in lines(figure).items() for at in line]
    assert max(height for _, height in crosses) < min(height for _, (_, height) in points)
    assert set(marks(figure, diverged=False)) == {at for label, at in points if "lstm" in label and at[0] > 3}


def test_other_sweeps_have_no_such_pictures() -> None:
    """No learning rate, no trial, or one rate a network."""
    spec, trials, measurements = robustness()
    assert learning_rate_figures(spec, [], []) == {}
    assert learning_rate_figures(spec, trials[:1], measurements[:1]) == {}
    document = study("spatial-rnn-figure-4-6", small=True)
    del document["space"]["train.learning_rate"]
    document["fixed"]["train.learning_rate"] = 0.1
    assert learning_rate_figures(SweepSpec.from_dict(document), trials, measurements) == {}


def test_they_can_be_drawn(tmp_path: Path) -> None:
    """Each becomes a PNG file, without a warning."""
    draw(tmp_path, learning_rate_figures(*robustness()))
    assert {path.stem for path in tmp_path.glob("*.png")} == NAMES
