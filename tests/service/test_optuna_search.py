"""The search: which points it asks for, what it tells Optuna, and that it can be rebuilt from the store."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import TrialState as OptunaState
from threadpoolctl import threadpool_info

from service.adapters.optuna_samplers import CLIMBS, LONG, calm, sampler
from service.adapters.optuna_search import Search
from service.domain import Measurement, Trial, TrialState
from service.spec import SweepSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = {
    "model.channels": {"kind": "choice", "values": [[8, 16, 16, 16], [16, 32, 32, 32]]},
    "train.optimizer": {"kind": "choice", "values": ["adam", "sgd"]},
    "train.momentum": {"kind": "float", "low": 0.5, "high": 0.9, "step": 0.1, "when": {"train.optimizer": "sgd"}},
    "train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "train.batch_size": {"kind": "int", "low": 16, "high": 256, "log": True},
}


def make_spec(**search: Any) -> SweepSpec:
    """A spec whose search, space, pruner or objective differ from the defaults here."""
    stop = {name: search.pop(name) for name in ("pruner", "grace_period", "reduction_factor") if name in search}
    return SweepSpec.from_dict(
        {
            "name": "test",
            "family": "narrow_resnet",
            "data": {"name": "digits"},
            "fixed": {"train.max_epochs": 16},  # so ASHA looks after 1 and 4
            "space": search.pop("space", SPACE),
            "search": {"trials": 1000, **search},
            "stop": {"pruner": "none", **stop},
            "objectives": [search.pop("objective", {"metric": "validation/accuracy", "mode": "max"})],
        }
    )


def make_trial(number: int, point: dict[str, Any], state: TrialState, value: float | None = None) -> Trial:
    """A trial of the sweep as the store would give it."""
    values = None if value is None else (value,)
    return Trial(
        id=f"s-{number:04}", sweep_id="s", number=number, point=point, state=state, values=values, created_at=NOW
    )


def measure(number: int, step: int, value: float) -> Measurement:
    """One accuracy of one trial."""
    return Measurement(trial_id=f"s-{number:04}", step=step, at=NOW, metrics={"validation/accuracy": value})


def points(search: Search, count: int) -> list[dict[str, Any]]:
    """The next so many points."""
    asked = [search.ask() for _ in range(count)]
    return [answer[1] for answer in asked if answer is not None]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_points_belong_to_the_space(sampler: str) -> None:
    """Every point is legal: conditional parameters are there exactly when they are active, lists come back as lists."""
    spec = make_spec(sampler=sampler)
    search = Search(spec)
    optimizers = set()
    for _ in range(40):
        asked = search.ask()
        assert asked is not None
        number, point = asked
        spec.space.check(point)
        spec.trial(point)
        optimizers.add(point["train.optimizer"])
        search.complete(number, (point["train.learning_rate"],))
    assert optimizers == {"adam", "sgd"}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_same_seed_gives_same_points(sampler: str) -> None:
    """The seed decides the points; another seed gives others."""
    first, again, other = (points(Search(make_spec(sampler=sampler, seed=seed)), 12) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_a_grid_is_tried_whole_and_once() -> None:
    """Every point comes once, in an order that the seed decides; a search that is rebuilt goes on with the rest."""
    space = {name: SPACE[name] for name in ("train.optimizer", "train.momentum", "model.channels")}
    spec, other = (make_spec(sampler="grid", space=space, seed=seed, trials=12) for seed in (0, 1))
    asked = points(Search(spec), 13)
    assert len(asked) == 12
    assert sorted(map(repr, asked)) == sorted(map(repr, spec.space.grid()))
    assert asked != points(Search(other), 12)
    history = [make_trial(n, point, TrialState.COMPLETED, 0.5) for n, point in enumerate(asked[:7])]
    assert points(Search(spec, history), 13) == asked[7:]


def test_true_is_not_one() -> None:
    """JSON values that Python thinks equal stay apart."""
    space = {"model.residual": {"kind": "choice", "values": [True, False]}}
    assert {repr(p["model.residual"]) for p in points(Search(make_spec(space=space)), 20)} == {"True", "False"}


def test_asks_for_no_more_trials_than_the_spec_allows() -> None:
    """The budget counts every trial, those that the store knows included."""
    known = [make_trial(n, {"train.batch_size": 32}, TrialState.FAILED) for n in range(3)]
    search = Search(make_spec(trials=5, space={"train.batch_size": SPACE["train.batch_size"]}), known)
    assert [answer[0] if answer else None for answer in (search.ask(), search.ask(), search.ask())] == [3, 4, None]


def test_each_end_is_told_with_its_own_state() -> None:
    """Completed, pruned, failed and not-finite trials are four different things to Optuna; none stays running."""
    search = Search(make_spec())
    for _ in range(5):
        search.ask()
    search.report(1, 1, 0.25)
    search.complete(0, (0.5,))
    search.prune(1)
    search.fail(2)
    search.complete(3, (math.nan,))
    search.complete(4, (math.inf,))
    told = [(trial.state, trial.value) for trial in search._study.trials]
    assert told == [
        (OptunaState.COMPLETE, 0.5),
        (OptunaState.PRUNED, 0.25),
        (OptunaState.FAIL, None),
        (OptunaState.FAIL, None),
        (OptunaState.FAIL, None),
    ]


def test_a_trial_cannot_be_told_twice() -> None:
    """A second end of the same trial is an error of ours, not something to overwrite quietly."""
    search = Search(make_spec())
    search.ask()
    search.complete(0, (0.5,))
    with pytest.raises(KeyError):
        search.fail(0)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "report", "complete", "prune", "fail"]),
        st.integers(0, 9),
        st.floats(allow_nan=True, allow_infinity=True),
    ),
    max_size=40,
)


@given(actions=ACTIONS, pruner=st.sampled_from(["asha", "none"]))
@settings(max_examples=60, deadline=None)
def test_no_order_of_reports_and_ends_leaves_a_trial_running(
    actions: list[tuple[str, int, float]], pruner: str
) -> None:
    """Whatever happens in whatever order, once every trial of ours has ended, so has every trial of Optuna's."""
    search = Search(make_spec(pruner=pruner, sampler="random"))
    steps: dict[int, int] = {}
    for action, which, value in actions:
        running = sorted(search.running)
        if action == "ask":
            search.ask()
        elif running:
            number = running[which % len(running)]
            if action == "report":
                steps[number] = steps.get(number, 0) + which % 2
                search.report(number, steps[number], value)
            elif action == "complete":
                search.complete(number, (value,))
            elif action == "prune":
                search.prune(number)
            else:
                search.fail(number)
    for number in search.running:
        search.fail(number)
    assert all(trial.state.is_finished() for trial in search._study.trials)


def drive(search: Search, epochs: int, history: list[Trial], measured: list[Measurement]) -> list[tuple[int, int]]:
    """Runs what is asked for until the budget is spent, keeping the books; (number, epochs) of every trial."""
    lengths = []
    while (asked := search.ask()) is not None:
        number, point = asked
        value = 0.0
        for step in range(1, epochs + 1):
            value = point["train.batch_size"] / 256 * (1 - math.exp(-step))
            measured.append(measure(number, step, value))
            if search.report(number, step, value):
                search.prune(number)
                history.append(make_trial(number, point, TrialState.PRUNED, value))
                break
        else:
            search.complete(number, (value,))
            history.append(make_trial(number, point, TrialState.COMPLETED, value))
        lengths.append((number, step))
    return lengths


def test_asha_prunes_the_worse_ones() -> None:
    """Most trials that start badly end early; the best one is let through to the end."""
    spec = make_spec(trials=40, pruner="asha", sampler="random", space={"train.batch_size": SPACE["train.batch_size"]})
    history: list[Trial] = []
    lengths = dict(drive(Search(spec), 16, history, []))
    best = max(history, key=lambda trial: trial.point["train.batch_size"])
    assert lengths[best.number] == 16
    assert sum(length < 16 for length in lengths.values()) > 20


@pytest.mark.parametrize(("grace_period", "shortest"), [(None, 1), (3, 3)])
def test_asha_leaves_trials_their_grace_period(grace_period: int | None, shortest: int) -> None:
    """No trial is pruned before the first rung, and the first ones to be pruned are pruned there."""
    space = {"train.batch_size": SPACE["train.batch_size"]}
    spec = make_spec(trials=20, pruner="asha", sampler="random", space=space, grace_period=grace_period)
    assert min(dict(drive(Search(spec), 16, [], [])).values()) == shortest


def test_a_smaller_reduction_factor_lets_more_trials_finish() -> None:
    """Of the trials that ASHA judges, about one in `reduction_factor` passes each rung."""

    def finished(reduction_factor: int) -> int:
        space = {"train.batch_size": SPACE["train.batch_size"]}
        spec = make_spec(
            trials=40, pruner="asha", sampler="random", space=space, grace_period=4, reduction_factor=reduction_factor
        )
        return sum(length == 16 for length in dict(drive(Search(spec), 16, [], [])).values())

    assert finished(2) > finished(8) > 0


def test_a_rebuilt_search_goes_on_as_the_first_would() -> None:
    """Rebuilt from the store half-way, Optuna has the same trials and values."""
    space = {"train.batch_size": SPACE["train.batch_size"]}
    spec = make_spec(trials=20, pruner="asha", sampler="random", space=space)
    history: list[Trial] = []
    measured: list[Measurement] = []
    first = Search(spec)
    drive(first, 16, history, measured)
    rebuilt = Search(make_spec(trials=40, pruner="asha", sampler="random", space=space), history, measured)

    def seen(search: Search) -> list[Any]:
        return [(t.state, t.value, t.params, t.intermediate_values) for t in search._study.trials]

    assert seen(rebuilt) == seen(first)


def test_a_rebuilt_search_does_not_repeat_itself() -> None:
    """The points after a restart are not those that the sampler drew at the beginning."""
    spec = make_spec(sampler="random")
    done = points(Search(spec), 10)
    history = [make_trial(n, point, TrialState.COMPLETED, 0.5) for n, point in enumerate(done)]
    assert not [point for point in points(Search(spec, history), 10) if point in done]


def test_unfinished_trials_are_asked_again_with_their_points() -> None:
    """A running trial keeps its number and point in a rebuilt search, and its measurements still count."""
    spec = make_spec(pruner="asha")
    point = {"model.channels": [16, 32, 32, 32], "train.optimizer": "sgd", "train.momentum": 0.7}
    point |= {"train.learning_rate": 0.003, "train.batch_size": 64}
    trials = [make_trial(3, point, TrialState.RUNNING), make_trial(5, point, TrialState.COMPLETED, 0.9)]
    search = Search(spec, trials, [measure(3, step, 0.1 * step) for step in (1, 2)])
    assert search.running == {3}
    asked = search.ask()
    assert asked is not None
    assert asked[0] == 6
    running = [trial for trial in search._study.trials if trial.state is OptunaState.RUNNING]
    assert running[0].params["train.learning_rate"] == 0.003
    assert len(running) == 2
    search.prune(3)
    assert search._study.trials[0].value == 0.2


def test_a_step_reported_again_changes_nothing() -> None:
    """A trial that continues reports the step of its checkpoint again: same verdict, no second value, no warning."""
    search = Search(make_spec(pruner="asha"))
    for value in (0.9, 0.1):
        asked = search.ask()
        assert asked is not None
        verdict = search.report(asked[0], 1, value)
        assert search.report(asked[0], 1, 0.5) == verdict
    assert verdict
    search.prune(1)
    assert search._study.trials[1].intermediate_values == {1: 0.1}


def test_importances_name_the_parameter_that_matters() -> None:
    """The parameter that alone makes the value gets nearly all of the importance."""
    search = Search(make_spec(sampler="random"))
    assert search.importances() == {}
    for _ in range(60):
        asked = search.ask()
        assert asked is not None
        search.complete(asked[0], (math.log10(asked[1]["train.learning_rate"]),))
    assert next(iter(search.importances())) == "train.learning_rate"


def test_thousands_of_trials_are_rebuilt_quickly() -> None:
    """A sweep of 5,000 trials is rebuilt, and asked for one more, within seconds (0.4 s when this was written)."""
    point = {"train.batch_size": 32}
    trials = [make_trial(n, point, TrialState.COMPLETED, n / 5000) for n in range(5000)]
    measured = [measure(n, step, 0.5) for n in range(5000) for step in (1, 2, 3)]
    spec = make_spec(trials=6000, space={"train.batch_size": SPACE["train.batch_size"]})
    started = time.perf_counter()
    Search(spec, trials, measured).ask()
    assert time.perf_counter() - started < 10


def test_a_gaussian_process_chooses_on_one_thread() -> None:
    """More would wait for each other; afterwards everything has as many as before."""
    before = [pool["num_threads"] for pool in threadpool_info()]
    with calm(make_spec(sampler="gp", space={"train.learning_rate": SPACE["train.learning_rate"]}).search):
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    with calm(make_spec(sampler="tpe").search):
        assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_a_gaussian_process_climbs_less_in_long_sweeps() -> None:
    """By the setting that Optuna itself starts from: should that go, this says so."""
    search = make_spec(sampler="gp", space={"train.learning_rate": SPACE["train.learning_rate"]}).search
    climbs = [
        sampler(search, number, IntersectionSearchSpace())._n_local_search  # type: ignore[attr-defined]
        for number in (0, LONG, LONG + 1)
    ]
    assert climbs == [GPSampler()._n_local_search] * 2 + [CLIMBS]


@pytest.mark.parametrize(("name", "own"), [("cma-es", CmaEsSampler), ("nsga-ii", NSGAIISampler)])
def test_samplers_with_generations_remember_what_all_trials_have(
    name: str, own: type[CmaEsSampler | NSGAIISampler]
) -> None:
    """It is what a sampler of Optuna's finds that looks through all trials, while they begin and end in any order."""
    space = {one: SPACE[one] for one in ("train.learning_rate", "train.batch_size")}
    search = make_spec(sampler=name, space=space).search
    study, common = optuna.create_study(), IntersectionSearchSpace()
    widths = [optuna.distributions.FloatDistribution(0, width) for width in (1, 1, 2)]
    names = [("a", "b", "c", "d"), ("a", "b", "c"), ("a", "b")]
    for number in range(12):
        which = 0 if number < 4 else 1 if number < 8 else 2
        trial = study.ask({one: widths[which] if one == "b" else widths[0] for one in names[which]})
        if number % 4 != 1:  # those run on, or end late
            study.tell(trial, 0.5)
        if number == 9:
            study.tell(1, state=OptunaState.FAIL)
        frozen = study.trials[number]
        expected = own().infer_relative_search_space(study, frozen)
        assert sampler(search, number, common).infer_relative_search_space(study, frozen) == expected
        assert set(expected) == {*names[which]} - ({"b"} if which == 2 else set())
    assert isinstance(own()._search_space, IntersectionSearchSpace), "Optuna keeps it elsewhere now"
