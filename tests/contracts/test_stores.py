"""What every store must do: the same cases for the one in memory and the one in a database.

`TEST_POSTGRES_URL` adds PostgreSQL: a database at that URL of which the tests may drop and make the schema `public`.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from service.adapters.memory import MemoryStore
from service.adapters.sql_store import SqlStore
from service.domain import (
    Conflict,
    IllegalMove,
    Measurement,
    ModelVersion,
    NotFound,
    Sweep,
    SweepState,
    Trial,
    TrialState,
    as_data,
)
from service.ports import Store

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "")
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite", *(["postgresql"] if POSTGRES else [])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "postgresql":
        _empty(POSTGRES)
    opened = SqlStore(POSTGRES if request.param == "postgresql" else f"sqlite:///{tmp_path}/store.db")
    opened.migrate()
    yield opened
    opened.close()


def _empty(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


def add_sweep(store: Store, sweep_id: str = "aaaa2222", *, age: float = 0, **changes: Any) -> Sweep:
    """A sweep in the store, `age` seconds old."""
    values = {"id": sweep_id, "name": "digits", "spec": {"family": "narrow_resnet"}} | changes
    sweep = Sweep(created_at=NOW - timedelta(seconds=age), **values)
    store.add_sweep(sweep)
    return sweep


def add_trial(store: Store, sweep: Sweep, number: int = 0, **changes: Any) -> Trial:
    """A trial of the sweep in the store."""
    values = {"point": {"train.learning_rate": 0.01, "model.channels": [16, 32]}} | changes
    trial = Trial(id=f"{sweep.id}-{number:04}", sweep_id=sweep.id, number=number, created_at=NOW, **values)
    store.add_trial(trial)
    return trial


def measure(trial: Trial, step: int = 1, **metrics: float) -> Measurement:
    """What the trial may report."""
    return Measurement(trial_id=trial.id, step=step, at=NOW, metrics=metrics or {"validation/accuracy": 0.5})


def complete(store: Store, sweep: Sweep, values: list[float]) -> None:
    """Adds a completed trial for each value."""
    for number, value in enumerate(values):
        trial = add_trial(store, sweep, number)
        store.finish_trial(trial.id, TrialState.COMPLETED, at=NOW, values=(value,))


def kinds(store: Store, sweep: Sweep) -> list[str]:
    """The kinds of the sweep's events in order."""
    return [event.kind for event in store.events(sweep.id)]


def together(*calls: Callable[[], object]) -> list[object]:
    """What the calls return, or the Conflict that they raise, started at the same moment in a thread each."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        start.wait()
        try:
            return call()
        except Conflict as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


# Sweeps


def test_a_sweep_comes_back_as_it_was(store: Store) -> None:
    """Every field survives, times in UTC included."""
    sweep = add_sweep(store, spec={"search": {"trials": 3}, "list": [1, 2.5, None, True, "ü"]})
    assert store.sweep(sweep.id) == replace(sweep, last_event=1)
    assert store.sweep(sweep.id).created_at.tzinfo is UTC


def test_a_time_in_another_zone_is_the_same_time(store: Store) -> None:
    """What is written with another offset compares equal when read."""
    there = datetime.fromisoformat("2026-03-01T14:30:00+05:30")
    store.add_sweep(Sweep(id="zone2222", name="zone", spec={}, created_at=there))
    assert store.sweep("zone2222").created_at == there


def test_a_taken_id_is_a_conflict(store: Store) -> None:
    """Adding a sweep twice changes nothing."""
    sweep = add_sweep(store)
    with pytest.raises(Conflict, match="aaaa2222"):
        add_sweep(store, name="other")
    assert store.sweep(sweep.id).name == "digits"
    assert kinds(store, sweep) == ["sweep"]


def test_sweeps_are_listed_newest_first_and_by_pages(store: Store) -> None:
    """Sweeps of the same moment are told apart by id, so that no page repeats or skips one."""
    for number in range(5):
        add_sweep(store, f"sweep{number}", age=number // 2)
    everything = [sweep.id for sweep in store.sweeps()]
    assert everything == ["sweep1", "sweep0", "sweep3", "sweep2", "sweep4"]
    assert [sweep.id for sweep in store.sweeps(limit=2)] == everything[:2]
    assert [sweep.id for sweep in store.sweeps(limit=2, before=everything[1])] == everything[2:4]
    assert [sweep.id for sweep in store.sweeps(limit=2, before=everything[3])] == everything[4:]
    assert store.sweeps(before=everything[4]) == []


def test_sweeps_are_found_by_state_and_name(store: Store) -> None:
    """Both filters hold at once."""
    add_sweep(store, "one", age=3)
    add_sweep(store, "two", age=2, name="other")
    add_sweep(store, "three", age=1)
    store.move_sweep("one", SweepState.RUNNING, at=NOW)
    assert [sweep.id for sweep in store.sweeps(states=[SweepState.QUEUED])] == ["three", "two"]
    assert [sweep.id for sweep in store.sweeps(states=[SweepState.QUEUED, SweepState.RUNNING])] == [
        "three",
        "two",
        "one",
    ]
    assert [sweep.id for sweep in store.sweeps(states=[SweepState.QUEUED], name="digits")] == ["three"]


def test_a_sweep_moves_by_the_table_of_moves(store: Store) -> None:
    """A move keeps its time and reason and tells watchers; an illegal one changes nothing."""
    sweep = add_sweep(store)
    later = NOW + timedelta(seconds=5)
    running = store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW)
    failed = store.move_sweep(sweep.id, SweepState.FAILED, at=later, reason="out of memory\0")
    assert (running.state, running.started_at, running.moved_at) == (SweepState.RUNNING, NOW, NOW)
    assert (failed.state, failed.finished_at, failed.moved_at) == (SweepState.FAILED, later, later)
    assert failed == store.sweep(sweep.id)
    with pytest.raises(IllegalMove, match="is failed and cannot become running"):
        store.move_sweep(sweep.id, SweepState.RUNNING, at=NOW)
    assert [(event.number, event.at, event.data) for event in store.events(sweep.id)] == [
        (1, NOW, {"state": "queued", "reason": ""}),
        (2, NOW, {"state": "running", "reason": ""}),
        (3, later, {"state": "failed", "reason": "out of memory"}),
    ]


def test_of_two_movers_one_wins(store: Store) -> None:
    """Two threads that move a sweep out of the same state: one does, the other hears that it came too late."""
    for round_ in range(10):
        sweep = add_sweep(store, f"race{round_}")
        outcomes = together(
            lambda sweep=sweep: store.move_sweep(sweep.id, SweepState.STOPPED, at=NOW),
            lambda sweep=sweep: store.move_sweep(sweep.id, SweepState.FAILED, at=NOW),
        )
        (winner,) = (outcome for outcome in outcomes if isinstance(outcome, Sweep))
        assert sum(isinstance(outcome, IllegalMove) for outcome in outcomes) == 1
        assert store.sweep(sweep.id) == winner
        assert kinds(store, sweep) == ["sweep", "sweep"]


def test_attempts_are_counted_once_each(store: Store) -> None:
    """Who counts on from an attempt that another has counted on from hears of it."""
    sweep = add_sweep(store)
    assert store.count_attempt(sweep.id) == 1
    assert store.count_attempt(sweep.id, after=1) == 2
    with pytest.raises(Conflict, match="has had 2 attempts, not 1"):
        store.count_attempt(sweep.id, after=1)
    outcomes = together(*[lambda: store.count_attempt(sweep.id, after=2)] * 4)
    assert outcomes.count(3) == 1
    assert store.sweep(sweep.id).attempt == 3


# Trials


def test_a_trial_comes_back_as_it_was(store: Store) -> None:
    """Its point may hold any JSON value, also one that looks like a number that is none."""
    sweep = add_sweep(store)
    point = {"a": [1, [2, 3]], "b": None, "c": "NaN", "d": {"e": -0.5}, "f": True}
    trial = add_trial(store, sweep, point=point)
    assert store.trial(trial.id) == trial
    assert store.trials(sweep.id) == [trial]
    assert store.events(sweep.id)[-1].data == as_data(trial)


def test_adding_a_trial_again_changes_nothing(store: Store) -> None:
    """A driver that starts over may repeat itself, also when the trial has gone on meanwhile."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    ended = store.finish_trial(trial.id, TrialState.PRUNED, at=NOW)
    add_trial(store, sweep, point={})
    assert store.trial(trial.id) == ended
    assert kinds(store, sweep) == ["sweep", "trial", "trial"]


def test_two_trials_cannot_share_a_number(store: Store) -> None:
    """Numbers are unique within a sweep, not across sweeps."""
    first, second = add_sweep(store, "first"), add_sweep(store, "second")
    trial = add_trial(store, first)
    add_trial(store, second)
    with pytest.raises(Conflict, match="another trial number 0"):
        store.add_trial(Trial(id="else", sweep_id=first.id, number=0, point={}, created_at=NOW))
    assert store.trials(first.id) == [trial]


def test_trials_are_listed_by_number_and_found_by_state(store: Store) -> None:
    """Whatever the order in which they came."""
    sweep = add_sweep(store)
    for number in (2, 0, 1):
        add_trial(store, sweep, number)
    store.finish_trial(f"{sweep.id}-0001", TrialState.FAILED, at=NOW, reason="NaN")
    assert [trial.number for trial in store.trials(sweep.id)] == [0, 1, 2]
    assert [trial.number for trial in store.trials(sweep.id, states=[TrialState.RUNNING])] == [0, 2]
    assert store.trials(sweep.id, states=[TrialState.COMPLETED]) == []
    assert store.count_trials(sweep.id) == {TrialState.RUNNING: 2, TrialState.FAILED: 1}


def test_an_ended_trial_keeps_its_values_and_stays_ended(store: Store) -> None:
    """Values of several objectives survive; a second end is refused and leaves the first."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    ended = store.finish_trial(trial.id, TrialState.COMPLETED, at=NOW, values=(0.9, 1e-300))
    assert (ended.state, ended.values, ended.finished_at) == (TrialState.COMPLETED, (0.9, 1e-300), NOW)
    assert store.trial(trial.id) == ended
    with pytest.raises(IllegalMove, match="is completed and cannot become failed"):
        store.finish_trial(trial.id, TrialState.FAILED, at=NOW)
    assert store.trial(trial.id) == ended
    assert store.events(sweep.id)[-1].data == as_data(ended)


def test_a_failed_trial_may_have_values_that_are_no_numbers(store: Store) -> None:
    """NaN and the infinities come back, from the trial and from its event."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    store.finish_trial(trial.id, TrialState.FAILED, at=NOW, values=(math.nan, math.inf, -math.inf))
    for values in (store.trial(trial.id).values, store.events(sweep.id)[-1].data["values"]):
        assert math.isnan(values[0])
        assert list(values[1:]) == [math.inf, -math.inf]


def test_the_best_trials_are_completed_ones_in_order(store: Store) -> None:
    """Best first by the mode, equals by number; trials that did not complete never compete."""
    sweep = add_sweep(store)
    complete(store, sweep, [0.5, -1.0, 0.9, 0.5])
    add_trial(store, sweep, 4)
    store.finish_trial(add_trial(store, sweep, 5).id, TrialState.PRUNED, at=NOW, values=(7.0,))
    assert [trial.number for trial in store.best_trials(sweep.id, mode="max")] == [2, 0, 3, 1]
    assert [trial.number for trial in store.best_trials(sweep.id, mode="min")] == [1, 0, 3, 2]
    assert [trial.number for trial in store.best_trials(sweep.id, mode="max", limit=1)] == [2]


# Measurements


def test_the_first_report_of_a_step_stays(store: Store) -> None:
    """A repeat says so and changes nothing but where the newest checkpoint is."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    assert store.add_measurement(measure(trial, 1, loss=0.3), checkpoint="/c/1") is True
    assert store.add_measurement(measure(trial, 2, loss=0.2), checkpoint="/c/2") is True
    assert store.add_measurement(measure(trial, 1, loss=9.0), checkpoint="/c/1 again") is False
    assert store.add_measurement(measure(trial, 2, loss=9.0)) is False
    assert [one.metrics for one in store.measurements(sweep.id)] == [{"loss": 0.3}, {"loss": 0.2}]
    assert (store.trial(trial.id).step, store.trial(trial.id).checkpoint) == (2, "/c/1 again")
    assert kinds(store, sweep) == ["sweep", "trial", "measurement", "measurement"]


def test_a_measurement_keeps_nan_and_infinity(store: Store) -> None:
    """A diverged loss is a fact; it comes back from the measurement and from its event."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    store.add_measurement(measure(trial, loss=math.nan, high=math.inf, low=-math.inf, fine=0.5))
    for metrics in (store.measurements(sweep.id)[0].metrics, store.events(sweep.id)[-1].data["metrics"]):
        assert math.isnan(metrics["loss"])
        assert (metrics["high"], metrics["low"], metrics["fine"]) == (math.inf, -math.inf, 0.5)


def test_measurements_come_by_trial_and_step(store: Store) -> None:
    """For the whole sweep or for one trial, never another sweep's."""
    sweep, other = add_sweep(store, "here"), add_sweep(store, "there")
    second, first = add_trial(store, sweep, 1), add_trial(store, sweep, 0)
    store.add_measurement(measure(add_trial(store, other)))
    for trial, step in [(second, 1), (first, 2), (first, 1)]:
        store.add_measurement(measure(trial, step))
    found = [(one.trial_id, one.step) for one in store.measurements(sweep.id)]
    assert found == [(first.id, 1), (first.id, 2), (second.id, 1)]
    assert store.measurements(sweep.id, trial_id=second.id) == [measure(second, 1)]
    assert store.measurements(sweep.id, trial_id=f"{other.id}-0000") == []


def test_measurements_from_many_threads_are_all_kept_once(store: Store) -> None:
    """Threads that report overlapping steps of the same trials: each step is kept once and has one event."""
    sweep = add_sweep(store)
    trials = [add_trial(store, sweep, number) for number in range(3)]

    def report(order: int) -> list[bool]:
        steps = range(1, 6) if order else range(5, 0, -1)
        return [store.add_measurement(measure(trial, step)) for step in steps for trial in trials]

    kept = together(lambda: report(0), lambda: report(1), lambda: report(0))
    assert sum(sum(answers) for answers in kept if isinstance(answers, list)) == 15
    assert len(store.measurements(sweep.id)) == 15
    assert kinds(store, sweep).count("measurement") == 15
    assert [trial.step for trial in store.trials(sweep.id)] == [5, 5, 5]


# Model versions


def offer(store: Store, trial: Trial, **changes: Any) -> ModelVersion:
    """The trial as the newest version of a model."""
    values = {"name": "digits", "sweep_id": trial.sweep_id, "trial_id": trial.id, "value": 0.5, "path": "/m"} | changes
    return store.add_model_version(at=NOW, **values)


def test_versions_of_a_model_are_numbered_from_one(store: Store) -> None:
    """Newest first, each name by itself; the event is the whole version."""
    sweep = add_sweep(store)
    trials = [add_trial(store, sweep, number) for number in range(2)]
    first, second = (offer(store, trial) for trial in trials)
    other = offer(store, trials[0], name="other")
    assert (first.version, second.version, other.version) == (1, 2, 1)
    assert store.model_versions("digits") == [second, first]
    assert store.model_versions("unknown") == []
    assert store.models() == [second, other]
    assert store.events(sweep.id)[-1].data == as_data(other)


def test_the_same_trial_again_is_the_same_version(store: Store) -> None:
    """Without an event, also when other versions followed."""
    sweep = add_sweep(store)
    trials = [add_trial(store, sweep, number) for number in range(2)]
    first, second = (offer(store, trial) for trial in trials)
    assert offer(store, trials[0], value=0.7, after=0) == first
    assert store.model_versions("digits") == [second, first]
    assert kinds(store, sweep).count("model") == 2


def test_a_version_is_added_only_after_the_one_its_caller_knows(store: Store) -> None:
    """Sweeps of one name that compare with the same champion at once: one replaces it, the others hear of it."""
    trials = [add_trial(store, add_sweep(store, f"sweep{number}")) for number in range(4)]
    outcomes = together(*(lambda trial=trial: offer(store, trial, after=0) for trial in trials))
    assert sum(isinstance(outcome, ModelVersion) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 3
    outcomes = together(*(lambda trial=trial: offer(store, trial) for trial in trials))
    assert sorted(outcome.version for outcome in outcomes if isinstance(outcome, ModelVersion)) == [1, 2, 3, 4]


# Events


def test_events_are_read_in_pages(store: Store) -> None:
    """Above a number, in order, so many at most."""
    sweep = add_sweep(store)
    for done in range(1, 5):
        store.add_progress(sweep.id, what="images", done=done, total=4, at=NOW)
    assert [event.number for event in store.events(sweep.id)] == [1, 2, 3, 4, 5]
    assert [event.number for event in store.events(sweep.id, after=1, limit=2)] == [2, 3]
    assert store.events(sweep.id, after=5) == []
    assert store.events(sweep.id, after=4)[0].data == {"what": "images", "done": 4, "total": 4}


def test_events_of_many_threads_are_numbered_without_gaps(store: Store) -> None:
    """And each number is readable before any higher one is, so that a reader who follows the numbers misses none."""
    sweep = add_sweep(store)
    trials = [add_trial(store, sweep, number) for number in range(4)]
    writers = threading.Event()
    followed: list[int] = []

    def write(trial: Trial) -> None:
        for step in range(1, 16):
            store.add_measurement(measure(trial, step))
            store.add_progress(sweep.id, what=trial.id, done=step, total=15, at=NOW)

    def follow() -> None:
        ended = False
        while not ended:
            ended = writers.is_set()
            followed.extend(event.number for event in store.events(sweep.id, after=len(followed)))

    reader = threading.Thread(target=follow)
    reader.start()
    together(*(lambda trial=trial: write(trial) for trial in trials))
    writers.set()
    reader.join()
    assert followed == list(range(1, 1 + 1 + 4 + 4 * 15 * 2))
    assert store.sweep(sweep.id).last_event == followed[-1]


def test_the_tracker_cursor_never_goes_back(store: Store) -> None:
    """A sweep is untracked until the cursor reaches its newest event; oldest sweeps come first."""
    newer, older = add_sweep(store, "newer", age=1), add_sweep(store, "older", age=2)
    store.add_progress(older.id, what="images", done=1, total=1, at=NOW)
    assert [sweep.id for sweep in store.untracked()] == ["older", "newer"]
    store.set_tracked(older.id, 1)
    assert [sweep.id for sweep in store.untracked()] == ["older", "newer"]
    store.set_tracked(older.id, 2)
    store.set_tracked(older.id, 1)
    assert store.sweep(older.id).tracked == 2
    assert [sweep.id for sweep in store.untracked()] == [newer.id]


# All of it


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.sweep("none"),
        lambda store: store.sweeps(before="none"),
        lambda store: store.move_sweep("none", SweepState.RUNNING, at=NOW),
        lambda store: store.count_attempt("none"),
        lambda store: store.add_trial(Trial(id="t", sweep_id="none", number=0, point={}, created_at=NOW)),
        lambda store: store.trial("none"),
        lambda store: store.trials("none"),
        lambda store: store.count_trials("none"),
        lambda store: store.best_trials("none", mode="max"),
        lambda store: store.add_measurement(Measurement(trial_id="none", step=1, at=NOW, metrics={})),
        lambda store: store.finish_trial("none", TrialState.STOPPED, at=NOW),
        lambda store: store.measurements("none"),
        lambda store: store.measurements("known", trial_id="none"),
        lambda store: offer(store, Trial(id="none", sweep_id="known", number=0, point={}, created_at=NOW)),
        lambda store: offer(store, Trial(id="known-0000", sweep_id="none", number=0, point={}, created_at=NOW)),
        lambda store: store.add_progress("none", what="images", done=1, total=1, at=NOW),
        lambda store: store.events("none"),
        lambda store: store.set_tracked("none", 1),
    ],
)
def test_an_id_that_names_nothing_is_not_found(store: Store, call: Callable[[Store], object]) -> None:
    """By every method that takes one, with the id in the message; and nothing is written."""
    known = add_sweep(store, "known")
    add_trial(store, known)
    with pytest.raises(NotFound, match="'none'"):
        call(store)
    assert kinds(store, known) == ["sweep", "trial"]


@pytest.mark.parametrize("name", ["", "\0", "\ud800", "x" * 1000, "'; DROP TABLE sweeps; --"])
def test_names_that_cannot_be_are_not_found(store: Store, name: str) -> None:
    """Whatever a stranger puts into a URL."""
    for call in (store.sweep, store.trial, store.trials, store.events):
        with pytest.raises(NotFound):
            call(name)
    assert store.model_versions(name) == []
    assert store.sweeps(name=name) == []


def test_what_is_handed_out_and_in_are_copies(store: Store) -> None:
    """Changing a mapping that went in or came out does not change the store."""
    spec: dict[str, Any] = {"space": {"x": [1, 2]}}
    sweep = add_sweep(store, spec=spec)
    trial = add_trial(store, sweep, point={"x": [1]})
    metrics = {"loss": 1.0}
    store.add_measurement(Measurement(trial_id=trial.id, step=1, at=NOW, metrics=metrics))
    metrics["loss"] = 2.0
    for mapping in (spec["space"], store.sweep(sweep.id).spec["space"], store.sweeps()[0].spec["space"]):
        mapping["x"].append(3)
    for mapping in (trial.point, store.trial(trial.id).point, store.trials(sweep.id)[0].point):
        mapping["x"].append(2)
    store.measurements(sweep.id)[0].metrics["loss"] = 3.0  # type: ignore[index]
    store.events(sweep.id)[-1].data["metrics"]["loss"] = 3.0
    assert store.sweep(sweep.id).spec == {"space": {"x": [1, 2]}}
    assert store.trial(trial.id).point == {"x": [1]}
    assert store.measurements(sweep.id)[0].metrics == {"loss": 1.0}
    assert store.events(sweep.id)[-1].data["metrics"] == {"loss": 1.0}


def test_a_refused_change_leaves_no_trace(store: Store) -> None:
    """A transaction is all or nothing: what cannot be kept leaves neither a row nor a gap in the numbers."""
    sweep = add_sweep(store)
    trial = add_trial(store, sweep)
    with pytest.raises(TypeError):
        store.add_measurement(Measurement(trial_id=trial.id, step=1, at=NOW, metrics={"loss": object()}))  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="finite"):
        store.finish_trial(trial.id, TrialState.COMPLETED, at=NOW, values=(math.nan,))
    assert store.measurements(sweep.id) == []
    assert store.trial(trial.id) == trial
    assert store.sweep(sweep.id).last_event == 2
