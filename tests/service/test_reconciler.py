"""Sweeps are launched and ended, whatever dies in between."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service import reconciler, verbs
from service.adapters.memory_launcher import MemoryLauncher
from service.adapters.memory_store import MemoryStore
from service.domain import Sweep, SweepState, TrialState
from service.errors import Unavailable
from service.port_values import Job
from tests.service.sweep_world import World


@pytest.fixture
def world() -> World:
    """An empty world."""
    return World(MemoryStore())


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
    assert world.now(sweep).state is SweepState.STARTING


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
    for _ in range(reconciler.MAX_DEATHS):
        world.die(sweep, message="exit code 137")
        world.reconcile()
    failed = world.now(sweep)
    assert [attempt for _, attempt in world.launcher.launches] == [1, 2, 3, 4, 5]
    assert failed.state is SweepState.FAILED
    assert failed.reason == "the driver died 5 times without a result in between, the last time with: exit code 137"
    assert world.store.trial(unfinished.id).state is TrialState.FAILED
    assert world.store.trial(unfinished.id).reason == failed.reason
    assert [version.trial_id for version in world.store.model_versions("digits")] == [best.id]


def test_a_sweep_that_gets_on_between_its_drivers_deaths_goes_on(world: World) -> None:
    """However often they die in all; then as many in a row as of a new sweep, and it has failed."""
    sweep = world.submit()
    world.run(sweep)
    for number in range(2 * reconciler.MAX_DEATHS):
        world.trial(sweep, number)
        world.die(sweep)
        world.reconcile()
    for _ in range(reconciler.MAX_DEATHS - 1):
        assert world.now(sweep).state is SweepState.RUNNING
        world.die(sweep)
        world.reconcile()
    assert world.now(sweep).state is SweepState.FAILED


def test_a_sweep_whose_drivers_never_start_it_fails_too(world: World) -> None:
    """A driver that cannot be imported dies before it moves its sweep."""
    sweep = world.submit()
    world.reconcile()
    for _ in range(reconciler.MAX_DEATHS):
        world.die(sweep, message="no module named service")
        world.reconcile()
    assert world.now(sweep).state is SweepState.FAILED
    assert "no module named service" in world.now(sweep).reason


@pytest.mark.parametrize("state", [SweepState.STARTING, SweepState.RUNNING])
def test_a_job_that_the_cluster_lost_is_launched_again(world: World, state: SweepState) -> None:
    """A restarted cluster knows no jobs; that is not the driver's fault and does not count as a death.

    One that never said a word is launched as the same attempt. One that did may still run somewhere, cut off from its
    cluster, and yields to the next number.
    """
    sweep, times = world.submit(), 2 * reconciler.MAX_DEATHS
    world.reconcile()
    if state is SweepState.RUNNING:
        world.move(sweep, state)
    for _ in range(times):
        world.die(sweep, "missing")
        world.reconcile()
    attempts = [1] * (times + 1) if state is SweepState.STARTING else range(1, times + 2)
    assert world.launcher.launches == [(sweep.id, attempt) for attempt in attempts]
    assert (world.now(sweep).state, world.now(sweep).deaths) == (state, 0)


class Refusing(MemoryLauncher):
    """A cluster that answers, but takes no jobs while `refusing`, as one that has just started."""

    refusing = True

    def launch(self, sweep_id: str, attempt: int, *, trace: str = "") -> None:
        """Takes the job or does not."""
        if self.refusing:
            raise Unavailable("no agent is ready to take jobs")
        super().launch(sweep_id, attempt, trace=trace)


def test_a_launch_that_failed_is_made_up_for(world: World) -> None:
    """However often it fails, as the same attempt; so is one whose launcher died after counting it."""
    world.launcher = launcher = Refusing()
    sweep = world.submit()
    for _ in range(2 * reconciler.MAX_DEATHS):
        with pytest.raises(Unavailable, match="no agent is ready"):
            world.reconcile()
    assert world.now(sweep).attempt == 1
    launcher.refusing = False
    world.reconcile()
    world.reconcile()
    assert launcher.launches == [(sweep.id, 1)]


def test_a_cluster_that_lost_a_driver_and_takes_no_other_costs_one_attempt(world: World) -> None:
    """The next one's number is counted once, however long the cluster refuses it."""
    world.launcher = launcher = Refusing()
    launcher.refusing = False
    sweep = world.submit()
    world.reconcile()
    world.move(sweep, SweepState.RUNNING)
    world.die(sweep, "missing")
    launcher.refusing = True
    for _ in range(2 * reconciler.MAX_DEATHS):
        with pytest.raises(Unavailable, match="no agent is ready"):
            world.reconcile()
    launcher.refusing = False
    world.reconcile()
    world.die(sweep, "missing")
    world.reconcile()
    assert launcher.launches == [(sweep.id, 1), (sweep.id, 2), (sweep.id, 3)]


def test_two_reconcilers_launch_one_driver(world: World) -> None:
    """The other one finds that the attempt is counted and leaves the sweep to the next pass."""

    class Twin(MemoryStore):
        raced = False

        def count_attempt(self, sweep_id: str, *, after: int | None = None, died: bool = False) -> int:
            if not self.raced:
                self.raced = True
                reconciler.reconcile(self, world.launcher, clock=world.clock, trials_folder=world.trials_folder)
            return super().count_attempt(sweep_id, after=after, died=died)

    world.store = twin = Twin()
    sweep = world.submit()
    world.reconcile()
    assert twin.raced
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
        def launch(self, sweep_id: str, attempt: int, *, trace: str = "") -> None:
            if sweep_id == "sweep1":
                raise Unavailable("cannot launch sweep1")
            super().launch(sweep_id, attempt, trace=trace)

    world.launcher = Selective()
    world.submit()
    world.submit()
    with pytest.raises(Unavailable, match="sweep1"):
        world.reconcile()
    assert world.launcher.launches == [("sweep2", 1)]


def test_a_driver_that_does_not_cancel_is_stopped(world: World) -> None:
    """After its grace and not before; then its running trials are stopped, and the finished ones kept."""
    sweep = world.submit()
    world.run(sweep)
    done, running = world.trial(sweep, 0, 0.9), world.trial(sweep, 1)
    verbs.cancel(world.store, sweep.id, clock=world.clock)
    world.clock.advance((reconciler.GRACE - timedelta(seconds=1)).total_seconds())
    world.reconcile()
    assert world.launcher.job(sweep.id, 1).alive
    world.clock.advance(1)
    world.reconcile()
    assert world.launcher.job(sweep.id, 1).state == "stopped"
    world.reconcile()
    assert (world.now(sweep).state, world.now(sweep).reason) == (SweepState.STOPPED, "cancelled on request")
    assert world.store.trial(running.id).state is TrialState.STOPPED
    assert world.store.trial(done.id) == done
    assert [version.trial_id for version in world.store.model_versions("digits")] == [done.id]


@pytest.mark.parametrize("state", ["failed", "missing"])
def test_a_driver_that_dies_while_it_stops_is_not_followed(world: World, state: Any) -> None:
    """Its sweep is stopped in its place."""
    sweep = world.submit()
    world.run(sweep)
    verbs.stop(world.store, sweep.id, clock=world.clock)
    world.die(sweep, state)
    world.reconcile()
    assert world.now(sweep).state is SweepState.STOPPED
    assert world.launcher.launches == [(sweep.id, 1)]


def test_a_sweep_and_its_trials_end_together_or_not_at_all(world: World) -> None:
    """A crash in that moment leaves them all to the next pass."""

    class Crashing(MemoryStore):
        crashes = 1

        def move_sweep(self, sweep_id: str, state: SweepState, **rest: Any) -> Sweep:
            if state is SweepState.STOPPED and self.crashes:
                self.crashes -= 1
                raise SystemExit
            return super().move_sweep(sweep_id, state, **rest)

    world.store = Crashing()
    sweep = world.submit()
    world.run(sweep)
    for number in range(3):
        world.trial(sweep, number)
    verbs.stop(world.store, sweep.id, clock=world.clock)
    world.die(sweep)
    with pytest.raises(SystemExit):
        world.reconcile()
    assert world.now(sweep).state is SweepState.STOPPING
    assert world.store.count_trials(sweep.id) == {TrialState.RUNNING: 3}
    world.reconcile()
    assert world.now(sweep).state is SweepState.STOPPED
    assert world.store.count_trials(sweep.id) == {TrialState.STOPPED: 3}


def test_the_queue_is_by_priority_and_then_by_age(world: World) -> None:
    """A later sweep of more priority goes first; a paused sweep takes no place, a resumed one waits by its age."""
    low, first, high = world.submit(), world.submit(), world.submit(resources={"priority": 5})
    verbs.pause(world.store, low.id, clock=world.clock)
    world.reconcile(max_running_sweeps=2)
    assert world.launcher.launches == [(high.id, 1), (first.id, 1)]
    verbs.resume(world.store, low.id, clock=world.clock)
    latest = world.submit()
    world.reconcile(max_running_sweeps=3)
    assert world.launcher.launches[2:] == [(low.id, 1)]
    assert [sweep.id for sweep in world.store.queue(limit=9)] == [latest.id]


@pytest.mark.parametrize(
    ("verb", "state", "trials"),
    [
        (verbs.pause, SweepState.PAUSED, TrialState.PAUSED),
        (verbs.stop, SweepState.STOPPED, TrialState.STOPPED),
        (verbs.cancel, SweepState.STOPPED, TrialState.STOPPED),
    ],
)
def test_a_driver_that_dies_while_it_ends_its_sweep_is_not_followed(
    world: World, verb: Any, state: SweepState, trials: TrialState
) -> None:
    """What was asked of it is done in its place, to its trials too."""
    sweep = world.submit()
    world.run(sweep)
    running, done = world.trial(sweep, 0), world.trial(sweep, 1, 0.5)
    verb(world.store, sweep.id, clock=world.clock)
    world.die(sweep)
    world.reconcile()
    assert world.now(sweep).state is state
    assert world.store.trial(running.id).state is trials
    assert world.store.trial(done.id) == done
    assert world.launcher.launches == [(sweep.id, 1)]


def test_drivers_that_died_before_a_sweep_was_queued_again_are_forgotten(world: World) -> None:
    """A retried sweep has as many drivers to lose as a new one; their numbers go on."""
    sweep = world.submit()
    world.run(sweep)
    for _ in range(2):
        for _ in range(reconciler.MAX_DEATHS):
            assert world.now(sweep).state.driven
            world.die(sweep)
            world.reconcile()
        assert world.now(sweep).state is SweepState.FAILED
        verbs.retry(world.store, sweep.id, clock=world.clock)
        world.reconcile()
    assert [attempt for _, attempt in world.launcher.launches] == list(range(1, 2 * reconciler.MAX_DEATHS + 2))


def test_a_waiting_sweep_tells_why(world: World) -> None:
    """Who runs, how many may, and how many come before it; nothing once it runs."""
    first, second = world.submit(), world.submit()
    world.run(first)
    waits, urgent = world.submit(), world.submit(resources={"priority": 1})

    def why(sweep: Sweep, limit: int) -> str:
        return reconciler.waiting_for(world.store, world.now(sweep), max_running_sweeps=limit)

    assert why(first, 2) == ""
    assert why(second, 2) == "its driver starts"
    assert why(urgent, 9) == "it is about to be launched"
    limit = "2 sweeps run, of 2 that may (SWEEPSERVE_MAX_RUNNING_SWEEPS)"
    assert why(urgent, 2) == f"{limit}; 0 of those that wait come first"
    assert why(waits, 2) == f"{limit}; 1 of those that wait come first"


def test_a_sweep_that_is_launched_while_it_is_asked_about_waits_for_nothing_else(world: World) -> None:
    """It was queued when it was read, and is not when the others are."""
    queued = world.submit()
    world.run(queued)
    assert reconciler.waiting_for(world.store, queued, max_running_sweeps=9) == "it is about to be launched"


def test_a_reconciler_that_comes_late_ends_nothing(world: World) -> None:
    """It judged a driver that has been followed by another meanwhile: the sweep is the other's."""

    class Late(MemoryStore):
        late = False

        def move_sweep(self, sweep_id: str, state: SweepState, **rest: Any) -> Sweep:
            if self.late and state is SweepState.FAILED:
                self.late = False
                self.count_attempt(sweep_id)
            return super().move_sweep(sweep_id, state, **rest)

    world.store = store = Late()
    sweep = world.submit()
    world.run(sweep)
    for _ in range(reconciler.MAX_DEATHS - 1):
        world.die(sweep)
        world.reconcile()
    world.die(sweep)
    store.late = True
    world.reconcile()
    assert world.now(sweep).state is SweepState.RUNNING


def test_the_checkpoints_of_a_sweep_whose_driver_died_are_tidied(tmp_path: Path) -> None:
    """It was about to stop: nobody else would remove what it had no time for."""
    world = World(MemoryStore(), tmp_path)
    sweep = world.submit(resources={"keep_best": 1})
    world.run(sweep)
    for number, value in enumerate((0.5, 0.9, 0.7)):
        trial = world.trial(sweep, number, value)
        (world.trials_folder(sweep.id) / trial.id).mkdir(parents=True)
    running = world.trial(sweep, 3)
    (world.trials_folder(sweep.id) / running.id).mkdir()
    world.move(sweep, SweepState.STOPPING)
    world.die(sweep)
    world.reconcile()
    assert world.now(sweep).state is SweepState.STOPPED
    left = sorted(path.name for path in world.trials_folder(sweep.id).iterdir())
    assert left == [f"{sweep.id}-0001", running.id]
