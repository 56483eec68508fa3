"""Which checkpoints a sweep keeps: the best, the front, what may go on, and what others need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.adapters.memory_store import MemoryStore
from service.adapters.memory_tracker import MemoryTracker
from service.domain import Measurement, Sweep, SweepState, Trial, TrialState
from service.keeping import expendable, tidy
from service.sweeps import best_trials
from service.tracking import remove

AT = datetime(2026, 1, 1, tzinfo=UTC)
S = TrialState
BY_ACCURACY = {"metric": "validation/accuracy", "mode": "max"}
BY_SIZE = {"metric": "model/parameters", "mode": "min"}


def spec(keep: int | None = 2, *, repeats: int = 1, objectives: Sequence[Any] = (BY_ACCURACY,)) -> dict[str, Any]:
    """What of a spec says what is kept."""
    return {
        "resources": {"keep_best": keep},
        "search": {"repeats": repeats, "aggregate": "mean"},
        "objectives": list(objectives),
    }


def trial(number: int, state: TrialState, *values: float, repeats: int = 1) -> Trial:
    """A trial with a checkpoint."""
    return Trial(
        id=f"s-{number:04}",
        sweep_id="s",
        number=number,
        repeat=number % repeats,
        point={},
        state=state,
        values=values or None,
        checkpoint=f"/s-{number:04}/checkpoint-000001",
        created_at=AT,
    )


def numbers(trials: Sequence[Trial]) -> list[int]:
    """Theirs."""
    return [one.number for one in trials]


def test_the_best_stay_and_what_can_go_on() -> None:
    """Completed trials behind the best and pruned ones go; stopped, failed, paused and running ones may go on."""
    values = [(S.COMPLETED, 0.5), (S.COMPLETED, 0.9), (S.PRUNED, 0.99), (S.COMPLETED, 0.7), (S.COMPLETED, 0.7)]
    trials = [trial(i, state, value) for i, (state, value) in enumerate(values)]
    trials += [trial(5 + i, state) for i, state in enumerate((S.STOPPED, S.FAILED, S.PAUSED, S.RUNNING))]
    assert numbers(expendable(trials, spec(2))) == [0, 2, 4]
    assert numbers(expendable(trials, spec(1))) == [0, 2, 3, 4]


@pytest.mark.parametrize("resources", [{"keep_best": None}, {}])
def test_nothing_goes_where_all_is_kept(resources: dict[str, Any]) -> None:
    """On request, and in sweeps of a version that kept all."""
    trials = [trial(0, S.PRUNED), trial(1, S.COMPLETED, 0.1), trial(2, S.COMPLETED, 0.2)]
    assert expendable(trials, {**spec(), "resources": resources}) == []


def test_the_pareto_front_stays() -> None:
    """However long it is; behind it only the best by the first objective."""
    objectives = [BY_ACCURACY, BY_SIZE]
    found = [(0.9, 100), (0.8, 50), (0.7, 10), (0.85, 200), (0.6, 300)]
    trials = [trial(i, S.COMPLETED, *values) for i, values in enumerate(found)]
    assert numbers(expendable(trials, spec(1, objectives=objectives))) == [3, 4]
    assert numbers(expendable(trials, spec(2, objectives=objectives))) == [4]


def test_a_point_stays_until_all_of_its_trials_have_completed() -> None:
    """Its mean is not known before: here the second point would fall from the first place, the third could rise to it.

    The best single trial stays too, in a point that is behind: its model is the champion.
    """

    def completed(number: int, value: float) -> Trial:
        return trial(number, S.COMPLETED, value, repeats=2)

    first = [completed(0, 0.6), completed(1, 0.6), completed(2, 0.9), completed(4, 0.1)]
    assert expendable(first, spec(1, repeats=2)) == []
    failed = trial(3, S.FAILED, repeats=2)
    assert expendable([*first, failed], spec(1, repeats=2)) == []  # it may be run again
    assert numbers(expendable([*first, completed(5, 0.2)], spec(1, repeats=2))) == [4, 5]
    assert expendable([*first[:3], completed(3, 0.0)], spec(1, repeats=2)) == []
    better = [*first[:3], completed(3, 0.0), completed(6, 0.95), completed(7, 0.9)]
    assert numbers(expendable(better, spec(1, repeats=2))) == [0, 1, 2, 3]


VALUES = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75]), st.sampled_from([0.0, 1.0, 2.0])), max_size=24)


@given(
    values=VALUES,
    states=st.lists(st.sampled_from([S.COMPLETED] * 4 + [S.PRUNED, S.FAILED, S.STOPPED]), min_size=24, max_size=24),
    order=st.randoms(use_true_random=False),
    keep=st.integers(1, 4),
    repeats=st.integers(1, 3),
    several=st.booleans(),
)
def test_removing_as_trials_end_leaves_what_removing_at_the_end_leaves(
    values: list[tuple[float, float]], states: list[TrialState], order: Any, keep: int, repeats: int, several: bool
) -> None:
    """Whatever the order in which they end, with ties, repeats and fronts; and what must stay never goes on the way."""
    asked = spec(keep, repeats=repeats, objectives=[BY_ACCURACY, BY_SIZE] if several else [BY_ACCURACY])
    trials = []
    for number, (found, state) in enumerate(zip(values, states, strict=False)):
        ended = S.FAILED if state is S.PRUNED and repeats > 1 else state  # a pruned point has one trial
        trials.append(trial(number, ended, *found[: 1 + several], repeats=repeats))
    order.shuffle(trials)
    contenders: list[Trial] = []
    gone: list[Trial] = []
    for one in trials:
        contenders.append(one)
        leaving = expendable(contenders, asked)
        contenders = [other for other in contenders if other not in leaving]
        gone += leaving
    assert sorted(numbers(gone)) == numbers(expendable(trials, asked))
    assert all(one.over for one in gone)
    completed = [one for one in trials if one.state is S.COMPLETED]
    if completed:
        best = min(completed, key=lambda one: (-(one.values or (0.0,))[0], one.number))
        assert best not in gone
    if several and repeats == 1:
        for one in gone:
            if one.state is S.COMPLETED:
                assert any(_dominates(other.values, one.values) for other in completed)
    if repeats == 1 and not several:
        ranks = sorted(completed, key=lambda one: (-(one.values or (0.0,))[0], one.number))
        assert [one for one in ranks if one not in gone] == ranks[:keep]


def _dominates(one: Any, other: Any) -> bool:
    return one != other and one[0] >= other[0] and one[1] <= other[1]


class Disk:
    """A store with a sweep of completed trials, best last, and their folders."""

    def __init__(self, folder: Path, count: int, keep: int | None = 1) -> None:
        self.root, self.store = folder, MemoryStore()
        self.add_sweep("s", {**spec(keep), "name": "n"})
        for number in range(count):
            self.add(number, number / 10)

    def add_sweep(self, sweep_id: str, document: dict[str, Any]) -> None:
        """A running sweep."""
        self.store.add_sweep(Sweep(id=sweep_id, name="n", spec=document, created_at=AT))

    def add(self, number: int, value: float) -> None:
        """A trial that completes."""
        added = trial(number, S.RUNNING)
        checkpoint = self.folder / added.id / "checkpoint-000001"
        (checkpoint / "model").mkdir(parents=True)
        (checkpoint / "model" / "model.safetensors").write_text(added.id)
        self.store.add_trial(added)
        measured = Measurement(trial_id=added.id, step=1, at=AT, metrics={})
        self.store.add_measurement(measured, checkpoint=str(checkpoint))
        self.store.move_trial(added.id, S.COMPLETED, at=AT, values=(value,))

    @property
    def folder(self) -> Path:
        """Where the trials' folders are."""
        return self.root / "s" / "trials"

    def tidy(self) -> list[str]:
        """What is left."""
        tidy(self.store, "s", self.folder)
        left = sorted(path.name for path in self.folder.iterdir())
        for one in self.store.trials("s"):
            assert (one.weights == "kept") == (one.id in left)
        return left


def test_what_is_not_kept_leaves_the_disk_and_stays_on_the_leaderboard(tmp_path: Path) -> None:
    """The store says that it was removed; its values stay."""
    disk = Disk(tmp_path, 4)
    assert disk.tidy() == ["s-0003"]
    assert [one.weights for one in best_trials(disk.store, "s")] == ["kept"] + ["removed"] * 3


def test_models_and_what_other_sweeps_start_from_stay_until_those_are_gone(tmp_path: Path) -> None:
    """A version of a model; a trial that another sweep's spec names, fixed or searched, until that one is deleted."""
    disk = Disk(tmp_path, 5)
    disk.store.add_model_version(name="n", sweep_id="s", trial_id="s-0000", value=0.0, path="/", at=AT)
    disk.add_sweep("t", {"fixed": {"train.initial_weights": "trial:s-0001"}})
    searched = {"train.initial_weights": {"kind": "choice", "values": ["trial:s-0001", "trial:s-0002", None]}}
    disk.add_sweep("u", {"space": searched})
    assert disk.tidy() == ["s-0000", "s-0001", "s-0002", "s-0004"]
    for sweep_id, left in (("u", ["s-0000", "s-0001", "s-0004"]), ("t", ["s-0000", "s-0004"])):
        disk.store.move_sweep(sweep_id, SweepState.DELETING, at=AT)
        remove(disk.store, MemoryTracker(), sweeps_root=tmp_path)
        assert sorted(path.name for path in disk.folder.iterdir()) == left


class Death(BaseException):
    """The process is killed."""


@pytest.mark.parametrize("survived", range(7))
def test_a_process_that_dies_on_the_way_leaves_work_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """At any file that it removes: nothing that is needed is gone, and the next one removes the rest."""
    disk = Disk(tmp_path, 3)
    calls = 0

    def dying(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            if calls == survived:
                raise Death
            calls += 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", dying(os.unlink))
        patch.setattr("os.rmdir", dying(os.rmdir))
        with pytest.raises(Death):
            tidy(disk.store, "s", disk.folder)
    assert calls == survived
    assert (disk.folder / "s-0002" / "checkpoint-000001" / "model" / "model.safetensors").read_text() == "s-0002"
    assert disk.tidy() == ["s-0002"]


def test_a_folder_that_a_late_worker_wrote_again_goes_too(tmp_path: Path) -> None:
    """And what it reports of it does not bring the checkpoint back."""
    disk = Disk(tmp_path, 2)
    assert disk.tidy() == ["s-0001"]
    (disk.folder / "s-0000").mkdir()
    disk.store.add_measurement(Measurement(trial_id="s-0000", step=2, at=AT, metrics={}), checkpoint="/late")
    assert disk.store.trial("s-0000").weights == "removed"
    assert disk.tidy() == ["s-0001"]


def test_a_folder_that_cannot_be_removed_is_left_to_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, and without harm to the others."""
    disk = Disk(tmp_path, 3)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "no", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", refuse)
        tidy(disk.store, "s", disk.folder)
    assert "leaving what is left of trial s-0000 to the next time" in caplog.text
    assert disk.tidy() == ["s-0002"]
