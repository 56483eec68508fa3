"""The machine's clock is put forward or back by hours while sweeps run: what takes time takes as long as it takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from service import reconciler, submission
from service.adapters.clock import SteadyClock, SystemClock, since_boot
from service.adapters.memory_store import MemoryStore
from service.api.token_buckets import TokenBuckets
from service.domain import Sweep, SweepState
from service.driver.drive import End, look
from service.driver.run import Run
from service.errors import Conflict
from service.leadership import BELIEF, PATIENCE, Leader
from service.port_values import Job
from tests.service.driver.run_harness import Harness
from tests.service.sweep_world import DyingStore, World

JUMPS = [timedelta(hours=5), timedelta(hours=-5)]
SPEC: dict[str, Any] = {"stop": {"time_budget": "1m"}}


class Machine:
    """A machine whose clock can be put; its watch only goes forward."""

    def __init__(self) -> None:
        self.seconds, self.offset = 1000.0, timedelta()

    def wall(self) -> datetime:
        """What its clock shows."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds) + self.offset

    def watch(self) -> float:
        """Seconds since some moment."""
        return self.seconds

    def clock(self) -> SteadyClock:
        """That of a process that begins now."""
        return SteadyClock(wall=self.wall, watch=self.watch)

    def jump(self, by: timedelta) -> None:
        """Somebody puts the clock."""
        before = self.wall()
        self.offset += by
        assert self.wall() - before == by, "the clock jumped"


class Heard:
    """A run that only remembers which sweep it runs."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep


@pytest.mark.parametrize("by", JUMPS)
def test_a_time_budget_is_what_passed(by: timedelta) -> None:
    """In one driver, and over a pause and the next driver: not a second more or less."""
    machine, store = Machine(), MemoryStore()
    clock = machine.clock()
    store.add_sweep(Sweep(id="s", name="n", spec=SPEC, created_at=clock.now()))
    store.move_sweep("s", SweepState.RUNNING, at=clock.now())

    def end() -> End | None:
        return look(store, cast("Run", Heard(store.sweep("s"))), clock)

    machine.seconds += 20
    machine.jump(by)
    machine.seconds += 20
    assert end() is None
    store.move_sweep("s", SweepState.PAUSING, at=clock.now())
    store.move_sweep("s", SweepState.PAUSED, at=clock.now())
    assert store.sweep("s").ran == 40
    machine.jump(by)
    clock = machine.clock()  # of the next driver, which hears of the new time
    assert clock.now() == machine.wall()
    store.move_sweep("s", SweepState.QUEUED, at=clock.now())
    store.move_sweep("s", SweepState.RUNNING, at=clock.now())
    machine.seconds += 10
    machine.jump(-by)
    machine.seconds += 9
    assert end() is None
    machine.seconds += 1
    assert end() == End(SweepState.COMPLETED, "its time budget of 0:01:00 is over")


def test_a_driver_that_begins_before_the_last_one_counts_from_its_own_beginning() -> None:
    """The clock was put back while there was none: the budget of a sweep never grows by that."""
    machine, store = Machine(), MemoryStore()
    store.add_sweep(Sweep(id="s", name="n", spec=SPEC, created_at=machine.wall()))
    store.move_sweep("s", SweepState.RUNNING, at=machine.clock().now())
    machine.jump(timedelta(hours=-5))
    assert store.sweep("s").seconds_run(machine.clock().now()) == 0


def test_the_machines_own_watch_goes_forward_and_its_clock_is_followed() -> None:
    """A steady clock agrees with the machine's, as long as that is left alone."""
    times = [since_boot() for _ in range(100)]
    assert times == sorted(times)
    assert abs(SteadyClock().now() - SystemClock().now()) < timedelta(seconds=1)


@pytest.mark.parametrize("by", JUMPS)
def test_what_a_driver_does_comes_after_what_the_last_one_did(by: timedelta, tmp_path: Path) -> None:
    """By the times of the trials, which a sampler with generations is told of in their order."""
    harness = Harness(tmp_path)
    first = harness.start()["trial_id"]
    harness.recorder.close()
    harness.clock.advance(by.total_seconds())
    harness.again()
    assert harness.start()["trial_id"] == first
    harness.clock.advance(1)
    harness.report(first, 1, 0.5, finished="max_epochs reached")
    harness.clock.advance(1)
    second = harness.start()["trial_id"]
    harness.trials()
    ended, begun = harness.store.trial(first).finished_at, harness.store.trial(second).created_at
    assert ended is not None
    assert harness.store.trial(first).created_at < ended < begun


@pytest.mark.parametrize("by", JUMPS)
def test_a_driver_that_does_not_cancel_is_stopped_all_the_same(by: timedelta) -> None:
    """Soon, not hours later: it loses no more than the epoch that its sweep was cancelled in."""
    world = World(MemoryStore())
    sweep = world.submit()
    world.run(sweep)
    world.move(sweep, SweepState.CANCELLING)
    world.reconcile()
    assert world.launcher.job(sweep.id, 1).alive
    before = world.clock.now()
    world.clock.advance(by.total_seconds())
    assert world.clock.now() - before == by
    world.reconcile()
    assert not world.launcher.job(sweep.id, 1).alive


@pytest.mark.parametrize("by", JUMPS)
def test_a_request_that_died_before_a_jump_does_not_hold_its_key(by: timedelta) -> None:
    """The next one with the key makes its sweep; clocks that differ by seconds change nothing."""
    world = World(DyingStore())
    with pytest.raises(SystemExit):
        submit(world, "first")
    world.clock.advance(-5)
    with pytest.raises(Conflict, match="still under way"):
        submit(world, "second")
    world.clock.advance(by.total_seconds())
    assert submit(world, "third").id == "first"


def submit(world: World, sweep_id: str) -> Sweep:
    """A request with the same key, for a sweep of this id."""
    document = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}}
    submissions = submission.Submissions(
        store=world.store, clock=world.clock, weights_root=world.folder, new_id=lambda: sweep_id
    )
    return submissions.create(document, key="key")


@pytest.mark.parametrize("by", JUMPS)
def test_who_used_up_a_limit_waits_no_longer_than_without_a_jump(by: timedelta) -> None:
    """An hour back must not be an hour of refusals."""
    machine = Machine()
    buckets = TokenBuckets(machine.wall)
    while buckets.take("key", 60) == 0:
        pass
    machine.jump(by)
    buckets.take("key", 60)
    machine.seconds += 1.5
    assert buckets.take("key", 60) == 0


@pytest.mark.parametrize("by", JUMPS)
def test_a_jump_moves_no_lease(by: timedelta) -> None:
    """Leaders go by watches of their own, which do not jump; the store has no time in it."""
    store, machine = MemoryStore(), Machine()
    first, second = Leader(store, watch=machine.watch), Leader(store, watch=machine.watch)
    first.renew()
    second.renew()
    machine.jump(by)
    machine.seconds += BELIEF - 1
    second.renew()
    assert (first.leads, second.leads) == (True, False)
    machine.seconds += PATIENCE
    second.renew()
    assert (first.leads, second.leads) == (False, True)


def test_a_request_to_cancel_still_gets_its_grace() -> None:
    """Where no clock jumps."""
    world = World(MemoryStore())
    sweep = world.submit()
    world.run(sweep)
    world.move(sweep, SweepState.CANCELLING)
    world.clock.advance((reconciler.GRACE - timedelta(seconds=1)).total_seconds())
    world.reconcile()
    assert world.launcher.job(sweep.id, 1) == Job(state="running")
