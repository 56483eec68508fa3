"""What a user may do to sweeps, in every state that they may be in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from service import verbs
from service.adapters.memory_store import MemoryStore
from service.domain import INITIAL_WEIGHTS, SWEEP_MOVES, Sweep, SweepState, Trial, TrialState
from service.errors import Conflict, InvalidSpec, NotFound, Unavailable
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


class Overtaken(MemoryStore):
    """A store in which something else happens right before what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Callable[[], object]] = []
        """What happens before the next write, before the one after that, and so on."""

    def _overtake(self) -> None:
        if self.before:
            self.before.pop(0)()

    def change_spec(self, sweep_id: str, spec: Any, **rest: Any) -> Sweep:
        """Later."""
        self._overtake()
        return super().change_spec(sweep_id, spec, **rest)

    def move_sweep(self, sweep_id: str, state: SweepState, **rest: Any) -> Sweep:
        """Later."""
        self._overtake()
        return super().move_sweep(sweep_id, state, **rest)

    def move_trial(self, trial_id: str, state: TrialState, **rest: Any) -> Trial:
        """Later."""
        self._overtake()
        return super().move_trial(trial_id, state, **rest)


def overtaken() -> tuple[World, Overtaken]:
    """An empty world in which things happen at once."""
    store = Overtaken()
    return World(store), store


def nothing() -> None:
    """Happens."""


@pytest.mark.parametrize(("verb", "state"), [("stop", S.STOPPING), ("cancel", S.CANCELLING), ("pause", S.PAUSING)])
def test_a_sweep_that_starts_while_it_is_asked_to_end_still_does(verb: str, state: SweepState) -> None:
    """The request is not lost between two states."""
    world, store = overtaken()
    sweep = world.submit()
    store.before = [lambda: world.move(sweep, S.RUNNING)]
    assert act(world, verb, sweep).state is state


@pytest.mark.parametrize("verb", ["stop", "pause"])
def test_a_sweep_that_is_asked_twice_to_end_while_it_starts_is_ended_by_its_driver(verb: str) -> None:
    """Who saw it queued does not end it over the head of the driver that it has by now."""
    world, store = overtaken()
    sweep = world.submit()

    def start() -> None:
        world.move(sweep, S.RUNNING)
        act(world, verb, sweep)

    store.before = [start]
    assert act(world, verb, sweep).state is {"stop": S.STOPPING, "pause": S.PAUSING}[verb]


@pytest.mark.parametrize(("first", "second"), [("stop", "resume"), ("resume", "stop")])
def test_of_stopping_and_resuming_at_once_the_last_one_counts(first: str, second: str) -> None:
    """For the sweep and for its trials: none is left that nobody would run or end."""
    world, store = overtaken()
    sweep = in_state(world, S.PAUSED)
    world.store.move_trial(world.trial(sweep, 0).id, TrialState.PAUSED, at=world.clock.now())
    store.before = [lambda: act(world, first, sweep)]
    done = act(world, second, sweep)
    expected = {"stop": (S.STOPPED, TrialState.STOPPED), "resume": (S.QUEUED, TrialState.PAUSED)}[second]
    assert (done.state, states(world, sweep)[0]) == expected


@pytest.mark.parametrize("verb", ["stop", "cancel"])
@pytest.mark.parametrize("state", [S.PAUSED, S.QUEUED])
@pytest.mark.parametrize("trial", [TrialState.PAUSED, TrialState.RUNNING])
def test_a_sweep_without_a_driver_that_is_stopped_stops_its_trials(
    world: World, verb: str, state: SweepState, trial: TrialState
) -> None:
    """Nobody else would; they go on with it when it is resumed."""
    sweep = in_state(world, state)
    unfinished = world.trial(sweep, 0)
    if trial is not TrialState.RUNNING:  # whose end the store did not take
        world.store.move_trial(unfinished.id, trial, at=world.clock.now())
    act(world, verb, sweep)
    assert states(world, sweep) == [TrialState.STOPPED, TrialState.FAILED]
    assert act(world, "resume", sweep).state is S.QUEUED
    assert states(world, sweep) == [TrialState.PAUSED, TrialState.FAILED]


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


@pytest.mark.parametrize("verb", ["stop", "cancel", "pause"])
def test_a_sweep_that_is_asked_to_end_while_it_is_extended_is_not(verb: str) -> None:
    """The extension is refused whole: the sweep's next driver runs no more trials than it had."""
    world, store = overtaken()
    sweep = in_state(world, S.RUNNING)
    store.before = [lambda: act(world, verb, sweep)]
    with pytest.raises(Conflict, match="cannot be extended"):
        act(world, "extend", sweep)
    assert (world.now(sweep).spec, world.now(sweep).revision) == (sweep.spec, 0)


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_a_sweep_that_goes_on_while_it_is_extended_is_extended(verb: str) -> None:
    """Whoever queues it, it has its trials and the other's spec."""
    world, store = overtaken()
    sweep = in_state(world, S.STOPPED)
    world.store.move_trial(world.trial(sweep, 0).id, TrialState.STOPPED, at=world.clock.now())
    store.before = [nothing, lambda: act(world, verb, sweep)]
    extended = act(world, "extend", sweep)
    assert (extended.state, extended.spec["search"]["trials"]) == (S.QUEUED, 9)
    assert states(world, sweep)[0] is TrialState.PAUSED


@pytest.mark.parametrize("verb", ["resume", "retry", "extend"])
def test_a_sweep_whose_time_is_used_up_goes_on_only_with_more_of_it(world: World, verb: str) -> None:
    """Its next driver would end it at once, and stop the trials that failed; refused, they stay as they are."""
    sweep = in_state(world, S.RUNNING, stop={"time_budget": "1h"})
    world.clock.advance(3600)
    for state in (S.STOPPING, S.STOPPED):
        world.move(sweep, state)
    before = world.now(sweep), world.store.trials(sweep.id)
    with pytest.raises(Conflict, match="has used up its time budget of 1h: extend it by a larger time_budget"):
        act(world, verb, sweep)
    assert (world.now(sweep), world.store.trials(sweep.id)) == before
    verbs.extend(world.store, sweep.id, clock=world.clock, time_budget="2h")
    act(world, "pause", sweep)
    act(world, verb, sweep)


def test_two_extensions_at_once_are_both_kept() -> None:
    """The one that comes second looks again, and does not undo the first."""
    world, store = overtaken()
    sweep = in_state(world, S.COMPLETED, stop={"time_budget": "1h"})
    store.before = [lambda: verbs.extend(store, sweep.id, clock=world.clock, time_budget="3h")]
    extended = verbs.extend(world.store, sweep.id, clock=world.clock, trials=8)
    assert (extended.spec["search"]["trials"], extended.spec["stop"]["time_budget"]) == (8, "3h")
    assert (extended.state, extended.revision) == (S.QUEUED, 2)


@pytest.mark.parametrize("verb", ["resume", "extend", "retry"])
def test_a_verb_that_the_store_did_not_take_can_be_asked_again(verb: str) -> None:
    """Nothing is half done then: the trials are as they were, and the sweep."""
    world, store = overtaken()
    sweep = in_state(world, S.STOPPED)
    for number in range(2):
        world.store.move_trial(world.trial(sweep, number).id, TrialState.STOPPED, at=world.clock.now())
    before = states(world, sweep)

    def fail() -> None:
        raise Unavailable("the database does not answer")

    for writes in range(5):
        store.before = [*[nothing] * writes, fail]
        try:
            act(world, verb, sweep)
        except Unavailable:
            assert (world.now(sweep).state, states(world, sweep)) == (S.STOPPED, before)
        else:
            break
    assert world.now(sweep).state is S.QUEUED
    failed = TrialState.PAUSED if verb == "retry" else TrialState.FAILED
    assert states(world, sweep) == [TrialState.PAUSED, TrialState.PAUSED, failed]


# delete


def test_a_sweep_is_not_deleted_before_those_that_start_from_it_have_ended(world: World) -> None:
    """Their trials would fail; which one it is, the refusal says."""
    source = in_state(world, S.COMPLETED)
    trial = world.trial(source, 0, 0.5)
    starting = Sweep(
        id="starting", name="n", spec={"fixed": {INITIAL_WEIGHTS: f"trial:{trial.id}"}}, created_at=world.clock.now()
    )
    world.store.add_sweep(starting)
    with pytest.raises(Conflict, match=f"sweep starting starts from trial {trial.id}, and has not ended"):
        act(world, "delete", source)
    assert world.now(source).state is S.COMPLETED
    act(world, "stop", starting)
    assert act(world, "delete", source).state is S.DELETING


# populations


def test_a_population_stays_as_many_as_it_is(world: World) -> None:
    """Its trials train together: others would come too late, and a limit of time would end them all."""
    space = {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 0.1, "log": True}}
    sweep = world.submit(space=space, search={"trials": 4, "pbt": {"interval": 2}})
    with pytest.raises(InvalidSpec, match="need the 4 of its population, which all train together, got 8"):
        verbs.extend(world.store, sweep.id, clock=world.clock, trials=8)
    with pytest.raises(InvalidSpec, match="stop\\.time_budget: need null"):
        verbs.extend(world.store, sweep.id, clock=world.clock, time_budget="1h")
    assert world.now(sweep) == sweep
