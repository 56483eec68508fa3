"""When a running sweep must end, and when it hears of another spec."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from service.adapters.manual_clock import ManualClock
from service.adapters.memory_store import MemoryStore
from service.domain import Sweep, SweepState, Trial, TrialState
from service.driver.drive import (
    NODE_SECONDS,
    REQUESTS,
    End,
    Superseded,
    _Changed,
    _finish,
    _honest,
    _take_up,
    await_node,
    drive,
    look,
)
from service.driver.run import Run
from service.settings import Settings

SPEC: dict[str, Any] = {"stop": {}}
BUDGET: dict[str, Any] = {"stop": {"time_budget": "1m"}}


class Heard:
    """A run that only remembers which sweep it runs."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    def extend(self, sweep: Sweep) -> None:
        """Takes another spec."""
        self.sweep = sweep


class World:
    """A store with a running sweep, its driver and a clock."""

    def __init__(self, spec: dict[str, Any] = SPEC) -> None:
        self.store, self.clock = MemoryStore(), ManualClock()
        self.store.add_sweep(Sweep(id="s", name="n", spec=spec, created_at=self.clock.now()))
        self.store.count_attempt("s")
        self.move(SweepState.RUNNING)
        self.run = Heard(self.store.sweep("s"))

    def move(self, state: SweepState) -> None:
        """Somebody moves the sweep."""
        self.store.move_sweep("s", state, at=self.clock.now())

    def change(self, spec: dict[str, Any]) -> None:
        """Somebody changes its spec."""
        self.store.change_spec("s", spec, seen=self.store.sweep("s"), at=self.clock.now())

    def trial(self, number: int, state: TrialState) -> None:
        """It has a trial in this state."""
        trial = Trial(id=f"s-{number}", sweep_id="s", number=number, point={}, created_at=self.clock.now())
        self.store.add_trial(trial)
        self.store.move_trial(trial.id, state, at=self.clock.now())

    def look(self) -> End | None:
        """What the driver sees."""
        return look(self.store, cast("Run", self.run), self.clock)

    def finish(self, state: SweepState) -> SweepState:
        """The driver ends the sweep."""
        return _finish(self.store, self.run.sweep, state, "", self.clock)


def test_a_running_sweep_goes_on() -> None:
    """Without a request or a budget there is no end, however long it takes."""
    world = World()
    world.clock.advance(10**6)
    assert world.look() is None


@pytest.mark.parametrize(
    ("request_", "end"),
    [
        (SweepState.STOPPING, End(SweepState.STOPPED, "stopped on request", at_once=False)),
        (SweepState.PAUSING, End(SweepState.PAUSED, "paused on request", at_once=False)),
        (SweepState.CANCELLING, End(SweepState.STOPPED, "cancelled on request")),
    ],
)
def test_a_request_ends_it(request_: SweepState, end: End) -> None:
    """At once, or when its trials have reported."""
    world = World()
    world.move(request_)
    assert world.look() == end
    assert world.finish(end.state) is end.state


@pytest.mark.parametrize(
    ("end", "unfinished", "told"),
    [
        (End(SweepState.COMPLETED), False, End(SweepState.COMPLETED, "lost")),
        (End(SweepState.COMPLETED), True, End(SweepState.FAILED, "lost")),
        (End(SweepState.STOPPED, "stopped on request"), True, End(SweepState.STOPPED, "stopped on request; lost")),
    ],
)
def test_what_the_store_refused_is_in_the_reason(end: End, unfinished: bool, told: End) -> None:
    """A sweep with a trial that has not ended in the store is not completed."""
    trial = Trial(id="s-0000", sweep_id="s", number=0, point={}, created_at=ManualClock().now())
    left = [trial] if unfinished else []
    assert _honest(end, "lost", lambda: left, ManualClock()) == told
    assert _honest(end, "", lambda: left, ManualClock()) == end


def test_the_time_budget_ends_it() -> None:
    """It counts the time that the sweep ran, and may be extended on the way."""
    world = World(BUDGET)
    world.clock.advance(59)
    assert world.look() is None
    world.clock.advance(1)
    assert world.look() == End(SweepState.COMPLETED, "its time budget of 0:01:00 is over")
    world.change({"stop": {"time_budget": "2m"}})
    assert world.look() is None
    assert world.run.sweep.revision == 1


def test_a_sweep_that_was_ended_elsewhere_ends_here() -> None:
    """A driver whose sweep was given up must not go on with it."""
    world = World()
    world.move(SweepState.FAILED)
    assert world.look() == End(SweepState.FAILED, "the sweep became failed elsewhere")
    assert world.finish(SweepState.FAILED) is SweepState.FAILED


def test_a_driver_that_has_a_successor_ends() -> None:
    """Even where the sweep shall stop: that is the successor's to do, so the state stays as it is."""
    world = World()
    world.store.count_attempt("s")
    world.move(SweepState.STOPPING)
    with pytest.raises(Superseded, match="driver 2 has the sweep; this is driver 1"):
        world.look()
    with pytest.raises(Superseded):
        world.finish(SweepState.STOPPED)
    assert world.store.sweep("s").state is SweepState.STOPPING


def test_an_extension_at_the_last_moment_is_not_lost() -> None:
    """The driver hears that what it ran to its end is not all; a request at that moment wins over completion."""
    world = World()
    world.change(BUDGET)
    with pytest.raises(_Changed):
        world.finish(SweepState.COMPLETED)
    assert world.store.sweep("s").state is SweepState.RUNNING
    world.look()
    world.move(SweepState.STOPPING)
    assert world.finish(SweepState.COMPLETED) is SweepState.STOPPED


MISFIT = "a trial needs 1 CPU; the largest node has 0"


@pytest.mark.parametrize("patience", [NODE_SECONDS, math.inf])
def test_a_sweep_waits_for_a_node_and_goes_on_by_itself(patience: float) -> None:
    """It says what it waits for; workers that come back late, as after a restart of the head, are no failure."""
    world, told = World(), list[str]()
    nodes = iter([*[MISFIT] * 5, None])
    assert await_node(lambda: next(nodes), told.append, world.look, patience, world.clock) is None
    assert told == [*[f"no trial begins: {MISFIT}"] * 5, ""]


def test_a_new_sweep_that_no_node_can_hold_fails_after_a_while() -> None:
    """With what it needs and what there is."""
    world = World()
    began = world.clock.now()
    end = await_node(lambda: MISFIT, lambda _: None, world.look, NODE_SECONDS, world.clock)
    assert end == End(SweepState.FAILED, MISFIT)
    assert (world.clock.now() - began).total_seconds() == NODE_SECONDS


@pytest.mark.parametrize("request_", [SweepState.PAUSING, SweepState.STOPPING, SweepState.CANCELLING])
def test_a_request_ends_a_sweep_that_waits_for_a_node(request_: SweepState) -> None:
    """Also where it would wait for ever."""
    world = World()

    def misfit() -> str:
        if world.clock.now() - began > timedelta(days=1):
            world.move(request_)
        return MISFIT

    began = world.clock.now()
    assert await_node(misfit, lambda _: None, world.look, math.inf, world.clock) == world.look()
    assert world.store.sweep("s").state is request_


def test_trials_that_were_stopped_for_an_end_that_did_not_come_go_on() -> None:
    """The sweep was extended in that moment, or its driver died in it: it is running, and they are not over."""
    world = World()
    world.trial(0, TrialState.STOPPED)
    world.trial(1, TrialState.FAILED)
    _take_up(world.store.sweep("s"), world.store, world.clock)
    assert [trial.state for trial in world.store.trials("s")] == [TrialState.PAUSED, TrialState.FAILED]


@pytest.mark.parametrize("request_", [SweepState.STOPPING, SweepState.CANCELLING])
def test_a_stop_while_a_pause_ends_stops_its_trials(request_: SweepState) -> None:
    """They were paused already; the sweep gives the reason that was asked for last."""
    world = World()
    world.trial(0, TrialState.PAUSED)
    world.move(request_)
    assert world.finish(SweepState.PAUSED) is SweepState.STOPPED
    (trial,) = world.store.trials("s")
    reason = REQUESTS[request_].reason
    assert (trial.state, trial.reason, world.store.sweep("s").reason) == (TrialState.STOPPED, reason, reason)


def test_a_driver_that_comes_after_its_successor_touches_nothing(tmp_path: Path) -> None:
    """It goes by the number that it was launched with, not by the store's, which is the other's."""
    world = World()
    world.store.count_attempt("s")
    world.trial(0, TrialState.STOPPED)
    with pytest.raises(Superseded, match="driver 2 has the sweep; this is driver 1"):
        drive("s", 1, store=world.store, settings=Settings(home=tmp_path), clock=world.clock)
    assert [trial.state for trial in world.store.trials("s")] == [TrialState.STOPPED]
