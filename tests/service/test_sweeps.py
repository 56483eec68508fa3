"""Sweeps are created, stopped, ranked, launched and ended, whatever dies in between."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from service import sweeps
from service.adapters.memory import ManualClock, MemoryLauncher, MemoryStore
from service.domain import (
    Conflict,
    InvalidSpec,
    Job,
    Measurement,
    ModelVersion,
    NotFound,
    Sweep,
    SweepState,
    Trial,
    TrialState,
    Unavailable,
)

SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}, "search": {"trials": 5}}
LOSS = [{"metric": "validation/loss", "mode": "min"}]


class World:
    """A store, a cluster and a clock, with short names for what tests do to them."""

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.launcher, self.clock = store, MemoryLauncher(), ManualClock()
        self._ids = count(1)

    def submit(self, **changes: Any) -> Sweep:
        """A new sweep, a second after the one before."""
        self.clock.advance(1)
        return sweeps.create(self.store, SPEC | changes, clock=self.clock, new_id=lambda: f"sweep{next(self._ids)}")

    def reconcile(self, **limits: int) -> None:
        """A pass."""
        sweeps.reconcile(self.store, self.launcher, clock=self.clock, **limits)

    def run(self, sweep: Sweep) -> None:
        """Its driver starts."""
        self.reconcile()
        self.launcher.set_job(sweep.id, 1, Job(state="running"))
        self.move(sweep, SweepState.RUNNING)

    def move(self, sweep: Sweep, state: SweepState) -> None:
        """What its driver does."""
        self.store.move_sweep(sweep.id, state, at=self.clock.now())

    def die(self, sweep: Sweep, state: Any = "failed", message: str = "out of memory") -> None:
        """Its newest driver ends without a word to the store."""
        self.launcher.set_job(sweep.id, self.now(sweep).attempt, Job(state=state, message=message))

    def now(self, sweep: Sweep) -> Sweep:
        """The sweep as it is now."""
        return self.store.sweep(sweep.id)

    def trial(self, sweep: Sweep, number: int, value: float | None = None) -> Trial:
        """A trial with a checkpoint; one with a value is completed."""
        trial = Trial(
            id=f"{sweep.id}-{number:04}", sweep_id=sweep.id, number=number, point={}, created_at=self.clock.now()
        )
        self.store.add_trial(trial)
        measured = Measurement(trial_id=trial.id, step=1, at=self.clock.now(), metrics={})
        self.store.add_measurement(measured, checkpoint=f"/sweeps/{trial.id}/checkpoint-000001")
        if value is not None:
            self.store.finish_trial(trial.id, TrialState.COMPLETED, at=self.clock.now(), values=(value,))
        return self.store.trial(trial.id)

    def offer(self, trial: Trial) -> ModelVersion | None:
        """The trial as a champion."""
        return sweeps.offer_champion(self.store, trial.id, at=self.clock.now())


@pytest.fixture
def world() -> World:
    """An empty world."""
    return World(MemoryStore())


# create and stop


def test_a_created_sweep_is_queued_with_its_whole_spec(world: World) -> None:
    """Every default is filled in, so that later defaults do not change what was asked for."""
    sweep = world.submit()
    assert (sweep.state, sweep.name, sweep.last_event) == (SweepState.QUEUED, "digits", 1)
    assert sweep.spec["stop"]["pruner"] == "asha"
    assert world.store.sweeps() == [sweep]


def test_a_bad_spec_creates_nothing(world: World) -> None:
    """It is refused with its faults."""
    with pytest.raises(InvalidSpec, match="family"):
        world.submit(family="narrow_resnets")
    assert world.store.sweeps() == []


def test_ids_are_short_and_differ() -> None:
    """Eight characters that are legal in any path, URL and job name."""
    ids = {sweeps.new_sweep_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 8 and one.isalnum() and one == one.lower() for one in ids)


def test_a_queued_sweep_stops_at_once(world: World) -> None:
    """No driver has to be asked."""
    sweep = world.submit()
    stopped = sweeps.stop(world.store, sweep.id, clock=world.clock)
    assert (stopped.state, stopped.reason, stopped.finished_at) == (
        SweepState.STOPPED,
        "stopped on request",
        world.clock.now(),
    )
    world.reconcile()
    assert world.launcher.launches == []


def test_a_running_sweep_is_asked_to_stop_once(world: World) -> None:
    """Asking again changes nothing, not even the time from which its grace counts."""
    sweep = world.submit()
    world.run(sweep)
    stopping = sweeps.stop(world.store, sweep.id, clock=world.clock)
    world.clock.advance(5)
    assert stopping.state is SweepState.STOPPING
    assert sweeps.stop(world.store, sweep.id, clock=world.clock) == stopping


def test_an_ended_sweep_cannot_be_stopped(world: World) -> None:
    """The conflict names the state that it ended in."""
    sweep = world.submit()
    world.run(sweep)
    world.move(sweep, SweepState.COMPLETED)
    with pytest.raises(Conflict, match="is completed and cannot be stopped"):
        sweeps.stop(world.store, sweep.id, clock=world.clock)
    with pytest.raises(NotFound):
        sweeps.stop(world.store, "none", clock=world.clock)


class Hasty(MemoryStore):
    """A store in which a sweep's driver starts between being looked at and being moved by another."""

    def move_sweep(self, sweep_id: str, state: SweepState, **rest: Any) -> Sweep:
        """Moves it on first, once."""
        if self.sweep(sweep_id).state is SweepState.QUEUED:
            super().move_sweep(sweep_id, SweepState.RUNNING, at=rest["at"])
        return super().move_sweep(sweep_id, state, **rest)


def test_a_sweep_that_starts_while_it_is_stopped_still_stops() -> None:
    """The request is not lost between two states."""
    world = World(Hasty())
    sweep = world.submit()
    assert sweeps.stop(world.store, sweep.id, clock=world.clock).state is SweepState.STOPPING


# leaderboard and champion


def test_the_leaderboard_ranks_by_the_objective(world: World) -> None:
    """High accuracy or low loss first, equals by number."""
    accuracy, loss = world.submit(), world.submit(objectives=LOSS)
    for sweep in (accuracy, loss):
        for number, value in enumerate([0.5, 0.9, 0.1, 0.9]):
            world.trial(sweep, number, value)
    assert [trial.number for trial in sweeps.leaderboard(world.store, accuracy.id)] == [1, 3, 0, 2]
    assert [trial.number for trial in sweeps.leaderboard(world.store, loss.id, limit=2)] == [2, 0]


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
    world.store.finish_trial(bare.id, TrialState.COMPLETED, at=world.clock.now(), values=(0.9,))
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


# reconcile


def test_queued_sweeps_are_launched_in_order_up_to_the_limit(world: World) -> None:
    """The next one when another has ended."""
    submitted = [world.submit() for _ in range(3)]
    world.reconcile(max_running_sweeps=2)
    world.reconcile(max_running_sweeps=2)
    assert world.launcher.launches == [("sweep1", 1), ("sweep2", 1)]
    world.move(submitted[0], SweepState.RUNNING)
    world.move(submitted[0], SweepState.COMPLETED)
    world.reconcile(max_running_sweeps=2)
    assert world.launcher.launches[2:] == [("sweep3", 1)]


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_living_driver_is_left_alone(world: World, state: Any) -> None:
    """However long it takes to start its sweep."""
    sweep = world.submit()
    world.reconcile()
    world.launcher.set_job(sweep.id, 1, Job(state=state))
    world.clock.advance(3600)
    world.reconcile()
    assert world.launcher.launches == [(sweep.id, 1)]
    assert world.now(sweep).state is SweepState.QUEUED


@pytest.mark.parametrize("state", ["failed", "stopped", "succeeded"])
def test_a_dead_driver_is_followed_by_another(world: World, state: Any) -> None:
    """Whatever it died of, its sweep goes on; a trial that it completed and had no time to offer is the champion."""
    sweep = world.submit()
    world.run(sweep)
    trial, unoffered = world.trial(sweep, 0), world.trial(sweep, 1, 0.9)
    world.die(sweep, state)
    world.reconcile()
    assert world.launcher.launches == [(sweep.id, 1), (sweep.id, 2)]
    assert world.now(sweep).state is SweepState.RUNNING
    assert world.store.trial(trial.id) == trial
    assert [version.trial_id for version in world.store.model_versions("digits")] == [unoffered.id]


def test_a_driver_that_ended_its_sweep_is_not_followed(world: World) -> None:
    """Also where the sweep ends while the cluster is asked about its driver."""

    class Ending(MemoryLauncher):
        def job(self, sweep_id: str, attempt: int) -> Job:
            world.move(sweep, SweepState.COMPLETED)
            return Job(state="succeeded")

    sweep = world.submit()
    world.run(sweep)
    world.launcher = Ending()
    world.reconcile()
    assert world.launcher.launches == []
    assert world.now(sweep).state is SweepState.COMPLETED


def test_a_sweep_whose_drivers_keep_dying_fails(world: World) -> None:
    """With the last one's words; what it found stays, and its best trial is served."""
    sweep = world.submit()
    world.run(sweep)
    best, unfinished = world.trial(sweep, 0, 0.9), world.trial(sweep, 1)
    for _ in range(sweeps.MAX_ATTEMPTS):
        world.die(sweep, message="exit code 137")
        world.reconcile()
    failed = world.now(sweep)
    assert [attempt for _, attempt in world.launcher.launches] == [1, 2, 3, 4, 5]
    assert failed.state is SweepState.FAILED
    assert failed.reason == "the driver died 5 times, the last time with: exit code 137"
    assert world.store.trial(unfinished.id).state is TrialState.FAILED
    assert world.store.trial(unfinished.id).reason == failed.reason
    assert [version.trial_id for version in world.store.model_versions("digits")] == [best.id]


def test_a_sweep_whose_drivers_never_start_it_fails_too(world: World) -> None:
    """A driver that cannot be imported dies before it moves its sweep."""
    sweep = world.submit()
    world.reconcile()
    for _ in range(sweeps.MAX_ATTEMPTS):
        world.die(sweep, message="no module named service")
        world.reconcile()
    assert world.now(sweep).state is SweepState.FAILED
    assert "no module named service" in world.now(sweep).reason


@pytest.mark.parametrize("state", [SweepState.QUEUED, SweepState.RUNNING])
def test_a_job_that_the_cluster_lost_is_launched_again(world: World, state: SweepState) -> None:
    """A restarted cluster knows no jobs; that is not the driver's fault and does not count as a death."""
    sweep = world.submit()
    world.reconcile()
    if state is SweepState.RUNNING:
        world.move(sweep, state)
    for _ in range(2 * sweeps.MAX_ATTEMPTS):
        world.die(sweep, "missing")
        world.reconcile()
    assert set(world.launcher.launches) == {(sweep.id, 1)}
    assert world.now(sweep).state is state


class Refusing(MemoryLauncher):
    """A cluster that answers, but takes no jobs while `refusing`, as one that has just started."""

    refusing = True

    def launch(self, sweep_id: str, attempt: int) -> None:
        """Takes the job or does not."""
        if self.refusing:
            raise Unavailable("no agent is ready to take jobs")
        super().launch(sweep_id, attempt)


def test_a_launch_that_failed_is_made_up_for(world: World) -> None:
    """However often it fails, as the same attempt; so is one whose launcher died after counting it."""
    world.launcher = launcher = Refusing()
    sweep = world.submit()
    for _ in range(2 * sweeps.MAX_ATTEMPTS):
        with pytest.raises(Unavailable, match="no agent is ready"):
            world.reconcile()
    assert world.now(sweep).attempt == 1
    launcher.refusing = False
    world.reconcile()
    world.reconcile()
    assert launcher.launches == [(sweep.id, 1)]


def test_two_reconcilers_launch_one_driver(world: World) -> None:
    """The other one finds that the attempt is counted and leaves the sweep to the next pass."""

    class Twin(MemoryStore):
        raced = False

        def count_attempt(self, sweep_id: str, *, after: int | None = None) -> int:
            if not self.raced:
                self.raced = True
                sweeps.reconcile(self, world.launcher, clock=world.clock)
            return super().count_attempt(sweep_id, after=after)

    world.store = Twin()
    sweep = world.submit()
    world.reconcile()
    assert world.launcher.launches == [(sweep.id, 1)]
    assert world.now(sweep).attempt == 1


def test_a_silent_cluster_is_asked_again(world: World) -> None:
    """Nothing is counted or moved while it is down, and the pass says so once."""
    first, second = world.submit(), world.submit()
    world.run(first)
    world.launcher.down = True
    with pytest.raises(Unavailable, match=r"^the cluster does not answer$"):
        world.reconcile()
    world.launcher.down = False
    assert [world.now(sweep).attempt for sweep in (first, second)] == [1, 1]
    world.reconcile()
    assert world.launcher.launches == [(first.id, 1), (second.id, 1)]


def test_one_sweep_in_trouble_does_not_hold_up_the_others(world: World) -> None:
    """Sweeps after it in the pass are seen to."""

    class Selective(MemoryLauncher):
        def launch(self, sweep_id: str, attempt: int) -> None:
            if sweep_id == "sweep1":
                raise Unavailable("cannot launch sweep1")
            super().launch(sweep_id, attempt)

    world.launcher = Selective()
    world.submit()
    world.submit()
    with pytest.raises(Unavailable, match="sweep1"):
        world.reconcile()
    assert world.launcher.launches == [("sweep2", 1)]


def test_a_driver_that_does_not_stop_is_stopped(world: World) -> None:
    """After its grace and not before; then its running trials are stopped, and the finished ones kept."""
    sweep = world.submit()
    world.run(sweep)
    done, running = world.trial(sweep, 0, 0.9), world.trial(sweep, 1)
    sweeps.stop(world.store, sweep.id, clock=world.clock)
    world.clock.advance((sweeps.GRACE - timedelta(seconds=1)).total_seconds())
    world.reconcile()
    assert world.launcher.job(sweep.id, 1).alive
    world.clock.advance(1)
    world.reconcile()
    assert world.launcher.job(sweep.id, 1).state == "stopped"
    world.reconcile()
    assert (world.now(sweep).state, world.now(sweep).reason) == (SweepState.STOPPED, "stopped on request")
    assert world.store.trial(running.id).state is TrialState.STOPPED
    assert world.store.trial(done.id) == done
    assert [version.trial_id for version in world.store.model_versions("digits")] == [done.id]


@pytest.mark.parametrize("state", ["failed", "missing"])
def test_a_driver_that_dies_while_it_stops_is_not_followed(world: World, state: Any) -> None:
    """Its sweep is stopped in its place."""
    sweep = world.submit()
    world.run(sweep)
    sweeps.stop(world.store, sweep.id, clock=world.clock)
    world.die(sweep, state)
    world.reconcile()
    assert world.now(sweep).state is SweepState.STOPPED
    assert world.launcher.launches == [(sweep.id, 1)]


def test_ending_a_sweep_that_was_half_ended_does_the_rest(world: World) -> None:
    """A crash among its steps leaves it to the next pass, which the last step alone keeps from coming."""

    class Crashing(MemoryStore):
        def finish_trial(self, trial_id: str, state: TrialState, **rest: Any) -> Trial:
            if trial_id.endswith("2") and self.crashes:
                self.crashes -= 1
                raise SystemExit
            return super().finish_trial(trial_id, state, **rest)

        crashes = 1

    world.store = Crashing()
    sweep = world.submit()
    world.run(sweep)
    for number in range(3):
        world.trial(sweep, number)
    sweeps.stop(world.store, sweep.id, clock=world.clock)
    world.die(sweep)
    with pytest.raises(SystemExit):
        world.reconcile()
    assert world.now(sweep).state is SweepState.STOPPING
    world.reconcile()
    assert world.now(sweep).state is SweepState.STOPPED
    assert world.store.count_trials(sweep.id) == {TrialState.STOPPED: 3}
