"""Pictures of sweeps: drawn of any number of trials, labelled, with no text over another."""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import cv2
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from service.adapters.pictures import draw, sweep_figures
from service.adapters.population_picture import ancestry, course
from service.domain import Exploit, Measurement, Trial, TrialState
from service.spec import SweepSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = SweepSpec.from_dict(
    {
        "name": "nrn18-on-digits",
        "family": "narrow_resnet",
        "data": {"name": "digits"},
        "space": {
            "model.channels": {"kind": "choice", "values": [[8, 16, 16, 16], [16, 32, 32, 32], [24, 48, 48, 128]]},
            "train.optimizer": {"kind": "choice", "values": ["adam", "sgd"]},
            "train.momentum": {"kind": "float", "low": 0.5, "high": 0.9, "when": {"train.optimizer": "sgd"}},
            "train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "train.batch_size": {"kind": "int", "low": 16, "high": 256, "log": True},
            "train.weight_decay": {"kind": "float", "low": 0.001, "high": 0.001},
        },
    }
)
STATES = [TrialState.COMPLETED, TrialState.PRUNED, TrialState.COMPLETED, TrialState.FAILED, TrialState.STOPPED]


def make_figures(count: int, *, constant: bool = False) -> dict[str, Figure]:
    """The figures of a sweep of that many trials, every parameter and state among them."""
    corners = itertools.cycle(SPEC.space.corners())
    states = itertools.cycle(STATES)
    trials, measurements = [], []
    for number, point, state in zip(range(count), corners, states, strict=False):
        value = 0.5 if constant else 1 - 1 / (number + 2)
        trial_id = f"s-{number:04}"
        values = (value,) if state is TrialState.COMPLETED else None
        trials.append(
            Trial(id=trial_id, sweep_id="s", number=number, point=point, state=state, values=values, created_at=NOW)
        )
        for step in range(1, 4):
            reached = float("nan") if state is TrialState.FAILED else value * (1 if constant else step / 3)
            metrics = {"validation/accuracy": reached}
            measurements.append(Measurement(trial_id=trial_id, step=step, at=NOW, metrics=metrics))
    importances = {"train.learning_rate": 0.7, "model.channels": 0.3} if count > 2 else {}
    return sweep_figures(SPEC, trials, measurements, importances)


@pytest.mark.parametrize(("count", "constant"), [(0, False), (1, False), (2, False), (60, False), (3, True)])
def test_any_number_of_trials_is_drawn(tmp_path: Path, count: int, *, constant: bool) -> None:
    """Four PNG files that show something, whatever the sweep came to."""
    draw(tmp_path / "pictures", make_figures(count, constant=constant))
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.stem for file in files] == ["importances", "learning_curves", "parallel_coordinates", "slices"]
    for file in files:
        pixels = cv2.imread(str(file))
        assert pixels is not None
        assert pixels.std() > 1


def overlaps(axes: Axes, canvas: FigureCanvasAgg) -> list[tuple[str, str]]:
    """Pairs of tick labels of one axis that touch."""
    found = []
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        shown = [label for label in labels if label.get_text() and label.get_visible()]
        slanted = any(label.get_rotation() for label in shown)  # slanted ones lie side by side, their boxes do not
        boxes = [(label.get_text(), label.get_window_extent(canvas.get_renderer())) for label in shown]
        if not slanted:
            found += [(a, b) for (a, one), (b, other) in itertools.pairwise(boxes) if one.overlaps(other)]
    return found


def test_axes_are_labelled_and_labels_stay_apart() -> None:
    """Every axis says what it shows, and no tick label covers its neighbour."""
    figures = make_figures(60)
    for figure in figures.values():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        for axes in figure.axes:
            assert overlaps(axes, canvas) == []
    curves = figures["learning_curves"].axes[0]
    assert (curves.get_xlabel(), curves.get_ylabel()) == ("step", "validation/accuracy")
    panels = [axes for axes in figures["slices"].axes if axes.get_visible()]
    assert [axes.get_xlabel() for axes in panels[: len(SPEC.space)]] == list(SPEC.space)
    columns = [label.get_text() for label in figures["parallel_coordinates"].axes[0].get_xticklabels()]
    assert [column.replace("\n", "") for column in columns] == [*SPEC.space, "validation/accuracy"]


def test_the_best_trial_is_named() -> None:
    """The legend counts the trials by state and names the best completed one."""
    (legend,) = make_figures(5)["learning_curves"].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "2 completed",
        "1 pruned",
        "1 stopped",
        "best: trial 2",
    ]


def test_no_display_and_no_global_figure_is_touched() -> None:
    """Drawing does not load pyplot, which would choose a display and keep every figure."""
    asked = "import sys, service.adapters.pictures; print('matplotlib.pyplot' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


FEW = {"metric": "model/parameters", "mode": "min"}
LOSS = {"metric": "validation/loss", "mode": "min"}


@pytest.mark.parametrize("others", [[FEW], [FEW, LOSS]])
@pytest.mark.parametrize("count", [0, 1, 30])
def test_several_objectives_have_a_pareto_front(tmp_path: Path, others: list[dict[str, str]], count: int) -> None:
    """A panel for each objective beside the first, which says what is better; the front is apart from what it beats."""
    document = {**SPEC.to_dict(), "objectives": [{"metric": "validation/accuracy", "mode": "max"}, *others]}
    spec = SweepSpec.from_dict(document)
    trials = [
        Trial(
            id=f"s-{number:04}",
            sweep_id="s",
            number=number,
            point=point,
            state=TrialState.COMPLETED,
            values=(number % 7 / 7, 1000.0 * (number % 7) + 10 * number, 1 / (1 + number))[: 1 + len(others)],
            created_at=NOW,
        )
        for number, point in zip(range(count), itertools.cycle(spec.space.corners()), strict=False)
    ]
    figure = sweep_figures(spec, trials, [], {})["pareto_front"]
    draw(tmp_path, {"pareto_front": figure})
    assert cv2.imread(str(tmp_path / "pareto_front.png")).std() > 1  # type: ignore[union-attr]
    assert len(figure.axes) == len(others)
    if count:
        assert figure.axes[0].get_xlabel() == "validation/accuracy (more is better)"
        assert figure.axes[0].get_ylabel() == "model/parameters (less is better)"
        assert overlaps(figure.axes[0], FigureCanvasAgg(figure)) == []
    if count == 30 and others == [FEW]:
        (legend,) = figure.legends
        assert [entry.get_text() for entry in legend.get_texts()] == ["23 beaten", "7 on the front"]


def test_one_objective_has_no_pareto_front() -> None:
    """Its front would be the best trial."""
    assert "pareto_front" not in make_figures(5)


def make_population() -> list[Trial]:
    """Trial 0 copies 2 after two epochs; 1 copies 0 after four; 2 copies nobody."""
    rates = {(0, 0): 0.01, (1, 0): 0.02, (2, 0): 0.03, (0, 2): 0.036, (1, 4): 0.0288}

    def exploit(number: int, source: int, step: int) -> Exploit:
        return Exploit(
            trial_id=f"s-{number}",
            step=step,
            source=f"s-{source}",
            before={"train.learning_rate": rates[number, 0]},
            point={"train.learning_rate": rates[number, step]},
            checkpoint="/c",
        )

    made = {0: (exploit(0, 2, 2),), 1: (exploit(1, 0, 4),), 2: ()}
    return [
        Trial(
            id=f"s-{number}",
            sweep_id="s",
            number=number,
            point=exploits[-1].point if exploits else {"train.learning_rate": rates[number, 0]},
            exploits=exploits,
            state=TrialState.COMPLETED,
            values=(0.1 * number,) if number < 2 else (0.05,),
            step=6,
            created_at=NOW,
        )
        for number, exploits in made.items()
    ]


def test_the_way_of_weights_leads_through_several_trials() -> None:
    """The last copy was made of a copy: two epochs in trial 2, two in trial 0, two in trial 1."""
    trials = make_population()
    rate = "train.learning_rate"
    own = [(one.after, one.until, one.point[rate]) for one in course(trials[1])]
    assert own == [(0, 4, 0.02), (4, 6, 0.0288)]
    seen = [(one.after, one.until, one.point[rate]) for one in ancestry(trials[1], {one.id: one for one in trials})]
    assert seen == [(0, 2, 0.03), (2, 4, 0.036), (4, 6, 0.0288)]


def test_a_population_is_pictured_over_time(tmp_path: Path) -> None:
    """Its settings by epoch, in place of pictures that take a value for that of one point."""
    document = {
        "name": "people",
        "family": "narrow_resnet",
        "data": {"name": "digits"},
        "fixed": {"train.max_epochs": 6},
        "space": {"train.learning_rate": {"kind": "float", "low": 1e-3, "high": 1e-1, "log": True}},
        "search": {"trials": 3, "pbt": {"interval": 2}},
    }
    spec = SweepSpec.from_dict(document)
    for trials in ([], make_population()):
        figures = sweep_figures(spec, trials, [], {})
        assert set(figures) == {"learning_curves", "settings"}
        draw(tmp_path, figures)
    (axes,) = figures["settings"].axes
    (way,) = axes.lines
    assert list(way.get_ydata()) == [0.03, 0.03, 0.036, 0.036, 0.0288, 0.0288]
