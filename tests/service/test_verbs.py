"""What a user may do to sweeps, in every state that they may be in."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from service import verbs
from service.adapters.memory_store import MemoryStore
from service.domain import SWEEP_MOVES, Sweep, SweepState, Trial, TrialState
from service.errors import Conflict, InvalidSpec, NotFound
from tests.service.sweep_world import World

S = SweepState
PATHS = {
    S.QUEUED: (),
    S.STARTING: (S.STARTING,),
    S.RUNNING: (S.RUNNING,),
    S.PAUSING: (S.RUNNING, S.PAUSING),
    S.PAUSED: (S.RUNNING, S.PAUSING, S.PAUSED),
    S.STOPPING: (S.RUNNING, S.STOPPING),
    S.CANCELLING: (S.RUNNING, S.CANCELLING),
    S.COMPLETED: (S.RUNNING, S.COMPLETED),
    S.STOPPED: (S.RUNNING, S.STOPPING, S.STOPPED),
    S.FAILED: (S.RUNNING, S.FAILED),
    S.DELETING: (S.DELETING,),
}
"""How a sweep comes into each state."""


@pytest.fixture
def world() -> World:
    """An empty world."""
    return World(MemoryStore())


def act(world: World, verb: str, sweep: Sweep) -> Sweep:
    """Asks for the verb."""
    rest: dict[str, Any] = {"trials": 9} if verb == "extend" else {}
    done: Sweep = getattr(verbs, verb)(world.store, sweep.id, clock=world.clock, **rest)
    return done


def in_state(world: World, state: SweepState, **changes: Any) -> Sweep:
    """A sweep in that state, with a failed trial."""
    sweep = world.submit(**changes)
    world.store.move_trial(world.trial(sweep, 9).id, TrialState.FAILED, at=world.clock.now())
    for step in PATHS[state]:
        world.move(sweep, step)
    return world.now(sweep)


def states(world: World, sweep: Sweep) -> list[TrialState]:
    """Those of its trials, by number."""
    return [trial.state for trial in world.store.trials(sweep.id)]


def test_every_verb_moves_as_states_may_move() -> None:
    """What the table of verbs makes of a state, the table of moves allows."""
    assert set(verbs.VERBS) == set(get_args(verbs.Verb)) == set(verbs.DONE)
    for moves in verbs.VERBS.values():
        for state, target in moves.items():
            assert target is state or target in SWEEP_MOVES[state]


@pytest.mark.parametrize("state", SweepState)
@pytest.mark.parametrize("verb", get_args(verbs.Verb))
def test_each_verb_does_in_each_state_what_the_table_says(world: World, verb: Any, state: SweepState) -> None:
    """Or is refused with both named; asked a second time it changes nothing more."""
    sweep = in_state(world, state)
    if state not in verbs.VERBS[verb]:
        with pytest.raises(Conflict, match=f"is {state} and cannot be {verbs.DONE[verb]}"):
            act(world, verb, sweep)
        assert world.now(sweep) == sweep
        return
    target = verbs.VERBS[verb][state]
    done = act(world, verb, sweep)
    assert done.state is target
    if target in verbs.VERBS[verb]:
        assert act(world, verb, sweep).state is verbs.VERBS[verb][target]


@pytest.mark.parametrize("verb", get_args(verbs.Verb))
def test_a_sweep_that_is_not_there_is_not_found(world: World, verb: str) -> None:
    """By any verb."""
    with pytest.raises(NotFound):
        act(world, verb, Sweep(id="none", name="none", spec={}, created_at=world.clock.now()))


class Hasty(MemoryStore):
    """A store in which a sweep's driver starts between being looked at and being moved by another."""

    def move_sweep(self, sweep_id: str, state: SweepState, **rest: Any) -> Sweep:
        """Moves it on first, once."""
        if self.sweep(sweep_id).state is SweepState.QUEUED:
            super().move_sweep(sweep_id, SweepState.RUNNING, at=rest["at"])
        return super().move_sweep(sweep_id, state, **rest)


@pytest.mark.parametrize(("verb", "state"), [("stop", S.STOPPING), ("cancel", S.CANCELLING), ("pause", S.PAUSING)])
def test_a_sweep_that_starts_while_it_is_asked_to_end_still_does(verb: str, state: SweepState) -> None:
    """The request is not lost between two states."""
    world = World(Hasty())
    assert act(world, verb, world.submit()).state is state


def test_a_paused_sweep_that_is_stopped_stops_its_trials(world: World) -> None:
    """Nobody else would."""
    sweep = in_state(world, S.PAUSED)
    paused = world.trial(sweep, 0)
    world.store.move_trial(paused.id, TrialState.PAUSED, at=world.clock.now())
    act(world, "stop", sweep)
    assert states(world, sweep) == [TrialState.STOPPED, TrialState.FAILED]


@pytest.mark.parametrize("verb", ["resume", "extend", "retry"])
def test_what_a_sweeps_end_stopped_goes_on_with_it(world: World, verb: str) -> None:
    """From its checkpoint; trials that completed stay as they are, failed ones unless they are retried."""
    sweep = in_state(world, S.STOPPED)
    stopped, done = world.trial(sweep, 0), world.trial(sweep, 1, 0.5)
    world.store.move_trial(stopped.id, TrialState.STOPPED, at=world.clock.now())
    assert act(world, verb, sweep).state is S.QUEUED
    failed = TrialState.PAUSED if verb == "retry" else TrialState.FAILED
    assert states(world, sweep) == [TrialState.PAUSED, TrialState.COMPLETED, failed]
    again = world.store.trial(stopped.id)
    assert (again.checkpoint, again.step, again.finished_at) == (stopped.checkpoint, 1, None)
    assert world.store.trial(done.id) == done


def test_without_failed_trials_there_is_nothing_to_retry(world: World) -> None:
    """Unless the sweep itself failed, before it had any."""
    sweep = world.submit()
    for state in PATHS[S.COMPLETED]:
        world.move(sweep, state)
    with pytest.raises(Conflict, match="has no failed trials"):
        act(world, "retry", sweep)
    failed = world.submit()
    for state in PATHS[S.FAILED]:
        world.move(failed, state)
    assert act(world, "retry", failed).state is S.QUEUED


# extend


def test_an_extension_is_so_many_trials_and_so_much_time_in_all(world: World) -> None:
    """Asked again it changes nothing; the rest of the spec stays."""
    sweep = in_state(world, S.RUNNING, stop={"time_budget": "1h"})
    for _ in range(2):
        extended = verbs.extend(world.store, sweep.id, clock=world.clock, trials=7, time_budget="2h")
        assert (extended.revision, extended.state) == (1, S.RUNNING)
    assert extended.spec["search"] == {**sweep.spec["search"], "trials": 7}
    assert extended.spec["stop"] == {**sweep.spec["stop"], "time_budget": "2h"}
    assert world.store.events(sweep.id)[-1].data["spec"] == extended.spec


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({}, "need trials, or time_budget, or both"),
        ({"trials": 4}, "trials: need at least the 5 that it has, got 4"),
        ({"trials": 10**7}, "search.trials: need a whole number"),
        ({"time_budget": "30m"}, "time_budget: need at least what it has, 1h, got 30m"),
        ({"time_budget": "soon"}, "need a time such as 2h"),
    ],
)
def test_an_extension_that_is_none_is_a_fault(world: World, asked: dict[str, Any], fault: str) -> None:
    """Nothing is changed by it."""
    sweep = in_state(world, S.COMPLETED, stop={"time_budget": "1h"})
    with pytest.raises(InvalidSpec) as caught:
        verbs.extend(world.store, sweep.id, clock=world.clock, **asked)
    assert fault in str(caught.value)
    assert world.now(sweep) == sweep


def test_a_sweep_without_a_limit_of_time_can_have_no_more(world: World) -> None:
    """A limit would take some away."""
    with pytest.raises(InvalidSpec, match="what it has, no limit"):
        verbs.extend(world.store, world.submit().id, clock=world.clock, time_budget="99h")


def test_two_extensions_at_once_are_both_kept(world: World) -> None:
    """The one that comes second looks again, and does not undo the first."""

    class Racing(MemoryStore):
        raced = False

        def change_spec(self, sweep_id: str, spec: Any, **rest: Any) -> Sweep:
            if not self.raced:
                self.raced = True
                verbs.extend(self, sweep_id, clock=world.clock, time_budget="3h")
            return super().change_spec(sweep_id, spec, **rest)

    world.store = Racing()
    sweep = in_state(world, S.COMPLETED, stop={"time_budget": "1h"})
    extended = verbs.extend(world.store, sweep.id, clock=world.clock, trials=8)
    assert (extended.spec["search"]["trials"], extended.spec["stop"]["time_budget"]) == (8, "3h")
    assert (extended.state, extended.revision) == (S.QUEUED, 2)


def test_a_verb_that_crashed_half_way_can_be_asked_again() -> None:
    """A part of the trials is moved already; the rest follows, and the sweep last."""

    class Crashing(MemoryStore):
        crashes = 0

        def move_trial(self, trial_id: str, state: TrialState, **rest: Any) -> Trial:
            if self.crashes and trial_id.endswith("1"):
                self.crashes = 0
                raise SystemExit
            return super().move_trial(trial_id, state, **rest)

    store = Crashing()
    world = World(store)
    sweep = in_state(world, S.STOPPED)
    for number in range(3):
        world.store.move_trial(world.trial(sweep, number).id, TrialState.STOPPED, at=world.clock.now())
    store.crashes = 1
    with pytest.raises(SystemExit):
        act(world, "resume", sweep)
    assert world.now(sweep).state is S.STOPPED
    assert act(world, "resume", sweep).state is S.QUEUED
    assert states(world, sweep) == [TrialState.PAUSED] * 3 + [TrialState.FAILED]


def test_a_population_stays_as_many_as_it_is(world: World) -> None:
    """Its trials train together: others would come too late, and a limit of time would end them all."""
    space = {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 0.1, "log": True}}
    sweep = world.submit(space=space, search={"trials": 4, "pbt": {"interval": 2}})
    with pytest.raises(InvalidSpec, match="need the 4 of its population, which all train together, got 8"):
        verbs.extend(world.store, sweep.id, clock=world.clock, trials=8)
    with pytest.raises(InvalidSpec, match="stop\\.time_budget: need null"):
        verbs.extend(world.store, sweep.id, clock=world.clock, time_budget="1h")
    assert world.now(sweep) == sweep
