"""What sweeps found is ranked, and the best of a name is its champion."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from service.adapters.memory_store import MemoryStore
from service.domain import ModelVersion, Trial, TrialState
from service.leaderboards import Leaderboards
from service.points import Result
from tests.service.sweep_world import World

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOSS = [{"metric": "validation/loss", "mode": "min"}]


@pytest.fixture
def world() -> World:
    """An empty world."""
    return World(MemoryStore())


def test_the_leaderboard_ranks_by_the_objective(world: World) -> None:
    """High accuracy or low loss first, equals by number."""
    accuracy, loss = world.submit(), world.submit(objectives=LOSS)
    for sweep in (accuracy, loss):
        for number, value in enumerate([0.5, 0.9, 0.1, 0.9]):
            world.trial(sweep, number, value)
    assert [result.number for result in Leaderboards(world.store).page(accuracy.id)] == [1, 3, 0, 2]
    assert [result.number for result in Leaderboards(world.store).page(loss.id, limit=2)] == [2, 0]


def test_a_leaderboard_that_was_seen_goes_on_from_there(world: World) -> None:
    """What was computed of points whose trials are the same stays; the order is that of one that starts anew."""
    sweep = world.submit(objectives=[{"metric": "validation/accuracy", "mode": "max"}, *LOSS])
    boards = Leaderboards(world.store)
    for number, values in enumerate([(0.5, 1.0), (0.9, 3.0), (0.4, 2.0)]):
        complete(world, sweep.id, number, values)
    before = boards.whole(sweep.id)
    assert [(one.front, one.number) for one in before] == [(1, 1), (1, 0), (2, 2)]
    complete(world, sweep.id, 3, (0.95, 2.0))
    after = boards.whole(sweep.id)
    assert [(one.front, one.number) for one in after] == [(1, 3), (1, 0), (2, 1), (2, 2)]
    assert after[1] is before[1]
    assert after == Leaderboards(world.store).page(sweep.id)


def test_a_leaderboard_that_was_seen_shows_which_checkpoints_are_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was removed since is shown so; also where a page has more trials than are read at once."""
    monkeypatch.setattr("service.leaderboards.AT_ONCE", 2)
    sweep, boards = world.submit(search={"trials": 5, "repeats": 2}), Leaderboards(world.store)
    trials = [world.trial(sweep, number, number / 10) for number in range(3)]
    assert weights(boards.page(sweep.id)) == ["kept", "kept", "kept"]
    assert world.store.forget_checkpoint(trials[1].id)
    assert weights(boards.page(sweep.id)) == ["kept", "removed", "kept"]
    complete(world, sweep.id, 3, (-1.0,))
    assert weights(boards.page(sweep.id)) == ["kept", "removed", "kept", "none"]


def weights(page: list[Result]) -> list[str]:
    """Those of the points' trials."""
    return [trial.weights for one in page for trial in one.trials]


def complete(world: World, sweep_id: str, number: int, values: tuple[float, ...]) -> None:
    """A trial comes to these values."""
    one = Trial(id=f"{sweep_id}-{number:04}", sweep_id=sweep_id, number=number, point={}, created_at=NOW)
    world.store.add_trial(one)
    world.store.move_trial(one.id, TrialState.COMPLETED, at=NOW, values=values)


def test_a_better_trial_becomes_champion(world: World) -> None:
    """Of its sweep's name, with its checkpoint's model; a tie leaves the champion."""
    sweep = world.submit()
    first = world.offer(world.trial(sweep, 0, 0.8))
    assert first is not None
    assert (first.name, first.version, first.value) == ("digits", 1, 0.8)
    assert first.path == f"/sweeps/{sweep.id}-0000/checkpoint-000001/model"
    assert world.offer(world.trial(sweep, 1, 0.8)) is None
    better = world.offer(world.trial(sweep, 2, 0.9))
    assert better is not None
    assert world.store.model_versions("digits") == [better, first]


def test_less_loss_is_better(world: World) -> None:
    """The objective's mode decides."""
    sweep = world.submit(objectives=LOSS)
    world.offer(world.trial(sweep, 0, 0.8))
    assert world.offer(world.trial(sweep, 1, 0.9)) is None
    assert world.offer(world.trial(sweep, 2, 0.7)) is not None


def test_only_completed_trials_with_a_checkpoint_can_be_champion(world: World) -> None:
    """A running one has no value yet, and without a checkpoint there is nothing to serve."""
    sweep = world.submit()
    assert world.offer(world.trial(sweep, 0)) is None
    bare = Trial(id="bare", sweep_id=sweep.id, number=1, point={}, created_at=world.clock.now())
    world.store.add_trial(bare)
    world.store.move_trial(bare.id, TrialState.COMPLETED, at=world.clock.now(), values=(0.9,))
    assert world.offer(bare) is None


def test_the_champion_offered_again_is_itself(world: World) -> None:
    """A driver that is not sure whether it was heard may repeat itself."""
    trial = world.trial(world.submit(), 0, 0.8)
    first = world.offer(trial)
    assert first is not None
    assert world.offer(trial) == first
    assert len(world.store.model_versions("digits")) == 1


def test_sweeps_that_judge_alike_compete_by_value(world: World) -> None:
    """A later sweep of the name takes over only with a better value, an earlier one may win back."""
    earlier, later = world.submit(), world.submit(search={"trials": 7})
    world.offer(world.trial(earlier, 0, 0.8))
    assert world.offer(world.trial(later, 0, 0.7)) is None
    assert world.offer(world.trial(later, 1, 0.9)) is not None
    assert world.offer(world.trial(earlier, 1, 0.95)) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"objectives": LOSS},
        {"data": {"name": "digits", "image_size": 16}},
        {"fixed": {"data.image_size": 16}},
        {"space": {"data.image_size": {"kind": "choice", "values": [8, 16]}}},
    ],
)
def test_a_sweep_that_judges_otherwise_takes_the_name_over(world: World, changes: dict[str, Any]) -> None:
    """Its values do not compare: its first trial replaces the champion, and the earlier sweep's never come back."""
    earlier, later = world.submit(), world.submit(**changes)
    world.offer(world.trial(earlier, 0, 0.8))
    taken = world.offer(world.trial(later, 0, 0.5))
    assert taken is not None
    assert taken.version == 2
    assert world.offer(world.trial(earlier, 1, 0.99)) is None
    assert world.store.model_versions("digits")[0] == taken


def test_settings_of_the_data_are_the_same_wherever_a_spec_has_them(world: World) -> None:
    """Under `data` or under `fixed`: the sweeps judge alike."""
    world.offer(world.trial(world.submit(data={"name": "digits", "image_size": 16}), 0, 0.8))
    later = world.submit(fixed={"data.image_size": 16})
    assert world.offer(world.trial(later, 0, 0.7)) is None


class Crowded(MemoryStore):
    """A store in which another sweep's trial becomes champion between a comparison and its outcome."""

    rival: Trial | None = None

    def add_model_version(self, **version: Any) -> ModelVersion:
        """Lets the rival go first, once."""
        rival, self.rival = self.rival, None
        if rival is not None and rival.values:
            super().add_model_version(
                name=version["name"],
                sweep_id=rival.sweep_id,
                trial_id=rival.id,
                value=rival.values[0],
                path="/rival",
                at=version["at"],
            )
        return super().add_model_version(**version)


@pytest.mark.parametrize(("rival", "champions"), [(0.95, [0.95]), (0.85, [0.9, 0.85])])
def test_a_champion_that_came_meanwhile_is_compared_with(rival: float, champions: list[float]) -> None:
    """Two sweeps that offer at once: the better value ends as champion, never simply the later one."""
    store = Crowded()
    world = World(store)
    ours = world.trial(world.submit(), 0, 0.9)
    store.rival = world.trial(world.submit(), 0, rival)
    world.offer(ours)
    assert [version.value for version in store.model_versions("digits")] == champions
