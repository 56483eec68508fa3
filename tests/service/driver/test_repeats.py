"""Points with several trials: which begin when, what the search is told, and that it can all be rebuilt."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState

from service.adapters.optuna_samplers import RETOLD
from service.domain import Measurement, Trial, TrialState
from service.driver.repeats import Repeats, as_points
from service.spec import SweepSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def make_spec(pruner: str = "none", **search: Any) -> SweepSpec:
    """A spec with three repeats."""
    return SweepSpec.from_dict(
        {
            "name": "test",
            "family": "narrow_resnet",
            "data": {"name": "digits"},
            "fixed": {"train.max_epochs": 16},
            "space": {
                "train.batch_size": {"kind": "int", "low": 16, "high": 256, "log": True},
                "train.momentum": {"kind": "float", "low": 0.5, "high": 0.9, "step": 0.1},
            },
            "search": {"trials": 4, "repeats": 3, **search},
            "stop": {"pruner": pruner},
        }
    )


class Books:
    """A sweep's repeats with the trials that the store would have."""

    def __init__(self, spec: SweepSpec) -> None:
        self.spec, self.trials, self.measured = spec, dict[int, Trial](), list[Measurement]()
        self.repeats = Repeats(spec, [], [])
        self.now = NOW

    def at(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def rebuild(self) -> None:
        """What a new driver does."""
        self.repeats = Repeats(self.spec, [self.trials[n] for n in sorted(self.trials)], self.measured)

    def begin(self) -> int | None:
        asked = self.repeats.next()
        if asked is None:
            return None
        self.trials[asked.number] = Trial(id=f"s-{asked.number}", sweep_id="s", created_at=self.at(), **asked._asdict())
        return asked.number

    def report(self, number: int, step: int, value: float) -> bool:
        trial, metrics = self.trials[number], {"validation/accuracy": value}
        self.measured.append(Measurement(trial_id=trial.id, step=step, at=NOW, metrics=metrics))
        return self.repeats.report(trial, step, value)

    def end(self, number: int, value: float | None = None, state: TrialState | None = None) -> None:
        state = state or (TrialState.FAILED if value is None else TrialState.COMPLETED)
        values = None if value is None else (value,)
        self.trials[number] = replace(self.trials[number], state=state, values=values, finished_at=self.at())
        self.repeats.end(self.trials[number])

    def told(self) -> list[tuple[OptunaState, float | None]]:
        return [(trial.state, trial.value) for trial in self.repeats._search._study.trials]


def test_without_a_pruner_all_trials_of_a_point_begin_at_once() -> None:
    """They have numbers in a row, one point, and repeats 0, 1, 2; then the next point comes."""
    books = Books(make_spec())
    assert [books.begin() for _ in range(4)] == [0, 1, 2, 3]
    assert [trial.repeat for trial in books.trials.values()] == [0, 1, 2, 0]
    points = [trial.point for trial in books.trials.values()]
    assert points[0] == points[1] == points[2] != points[3]


def test_there_are_as_many_points_as_asked_for() -> None:
    """`trials` counts points, each of which is run `repeats` times."""
    books = Books(make_spec())
    assert [books.begin() for _ in range(13)] == [*range(12), None]


@pytest.mark.parametrize(("aggregate", "value"), [("mean", 0.5), ("best", 0.7)])
def test_a_point_is_told_once_when_its_last_trial_has_ended(aggregate: str, value: float) -> None:
    """With the mean or the best of the trials that completed, in whatever order they end."""
    books = Books(make_spec(aggregate=aggregate))
    for _ in range(3):
        books.begin()
    books.end(2, 0.3)
    books.end(0, None)
    assert books.told() == [(OptunaState.RUNNING, None)]
    books.end(1, 0.7)
    assert books.told() == [(OptunaState.COMPLETE, pytest.approx(value))]


def test_trials_of_a_point_that_is_pruned_when_tried_again_end_alone() -> None:
    """All of a point's trials had begun, since the first one failed; at the second try they run side by side."""
    books = Books(make_spec("asha"))
    books.begin()
    books.end(0)
    books.begin(), books.begin()
    books.end(1), books.end(2)
    assert books.told() == [(OptunaState.FAIL, None)]
    books.trials = {number: replace(trial, state=TrialState.PAUSED) for number, trial in books.trials.items()}
    books.rebuild()
    books.end(0, state=TrialState.PRUNED)
    books.end(1, 0.5)
    books.end(2)
    assert books.told() == [(OptunaState.PRUNED, None)]


def test_a_point_whose_trials_all_failed_has_failed() -> None:
    """The search learns that there is no value."""
    books = Books(make_spec())
    for _ in range(3):
        books.begin()
    books.end(0)
    books.end(1, state=TrialState.STOPPED)
    books.end(2)
    assert books.told() == [(OptunaState.FAIL, None)]


def test_with_a_pruner_the_first_trial_of_a_point_goes_ahead() -> None:
    """The others begin when it has ended, before any new point; a pruned point has no others."""
    books = Books(make_spec("asha"))
    assert [books.begin(), books.begin()] == [0, 3]
    assert not books.report(0, 1, 0.9)
    assert books.report(3, 1, 0.1)
    books.end(3, state=TrialState.PRUNED)
    assert books.begin() == 6
    books.end(0, 0.9)
    assert [books.begin() for _ in range(3)] == [1, 2, 9]
    assert not books.report(1, 1, 0.0)  # no pruner looks at it
    assert [state for state, _ in books.told()] == [
        OptunaState.RUNNING,
        OptunaState.PRUNED,
        OptunaState.RUNNING,
        OptunaState.RUNNING,
    ]


@pytest.mark.parametrize("first", [None, 0.5])
def test_a_first_trial_that_failed_says_nothing_of_the_others(first: float | None) -> None:
    """They begin as they would if it had completed."""
    books = Books(make_spec("asha"))
    books.begin()
    books.end(0, first)
    assert [books.begin(), books.begin()] == [1, 2]


def play(spec: SweepSpec, *, death: int | None = None, moves: int = 40) -> Any:
    """What begins, and what Optuna is told, with two trials at a time; before move `death` comes another driver."""
    books, running = Books(spec), list[int]()
    for now in range(moves):
        if now == death:
            books.rebuild()
        if len(running) < 2 and (number := books.begin()) is not None:
            running.append(number)
        elif running:
            number = running.pop(0)
            value = (7 * number % 11) / 11
            if books.report(number, 1, value):
                books.end(number, state=TrialState.PRUNED)
            else:
                books.end(number, None if number % 5 == 4 else value)
    return [(number, trial.repeat, trial.point) for number, trial in books.trials.items()], books.told()


@pytest.mark.parametrize("pruner", ["none", "asha"])
@pytest.mark.parametrize("moment", range(14))
def test_a_rebuilt_sweep_goes_on_as_the_first_would(pruner: str, moment: int) -> None:
    """Whenever a driver dies, the next one begins the same trials, and Optuna is told the same."""
    spec = make_spec(pruner, sampler="grid", trials=4)
    assert play(spec, death=moment) == play(spec)


@pytest.mark.parametrize("sampler", RETOLD)
@pytest.mark.parametrize("moment", [20, 41, 62])
def test_generations_of_points_go_on_in_a_rebuilt_sweep(sampler: str, moment: int) -> None:
    """A generation is of points, whose trials began and ended among those of others."""
    spec = make_spec(sampler=sampler, trials=14, population=4)
    trials, told = play(spec, moves=100)
    assert len(trials) == 3 * 14
    assert play(spec, death=moment, moves=100) == (trials, told)


def test_the_search_sees_points_and_not_trials() -> None:
    """A point is numbered by point, runs until its last trial has ended, and is pruned with its first."""
    books = Books(make_spec())
    for _ in range(7):
        books.begin()
    for number, value in enumerate((0.2, 0.4, None)):
        books.end(number, value)
    books.end(3, 0.5)
    books.end(6, state=TrialState.PRUNED)
    points = as_points(books.spec, list(books.trials.values()))
    assert [(point.number, point.state) for point in points] == [
        (0, TrialState.COMPLETED),
        (1, TrialState.RUNNING),
        (2, TrialState.PRUNED),
    ]
    assert points[0].values == pytest.approx((0.3,))
