"""SIGKILL, at random moments and more than once a sweep, to every program of a running stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search_spaces import SearchSpace
from service.plan import PopulationTraining
from service.population import Member, copies

pytestmark = pytest.mark.slow


def test_every_program_dies_in_random_order(
    stack: Any, undisturbed: list[dict[str, Any]], record_property: Callable[[str, object], None]
) -> None:
    """One sweep, through which each program is killed at random moments, and everything at once is one of them."""
    sweep_id = stack.sweep("in-turn")
    before = stack.killed.copy()
    victims = ["API", "driver", "worker", "MLflow", "Ray", "everything"] * stack.TIMES
    stack.random.shuffle(victims)
    stack.until_measured(sweep_id, 1)
    for victim in victims:
        stack.until_some_moment(sweep_id)
        assert stack.measured(sweep_id) < stack.MEASUREMENTS, "the sweep ended before everything was hurt"
        stack.kill(victim)
    killed = stack.killed - before
    record_property("killed", ", ".join(f"{count} {victim}" for victim, count in sorted(killed.items())))
    assert all(killed[victim] >= stack.TIMES for victim in victims)
    stack.assert_nothing_is_lost(sweep_id, undisturbed)


def test_a_population_survives_its_driver(stack: Any) -> None:
    """Killed on its way, it has each epoch once, and each look came to what its rule says."""
    epochs, interval, rate = 6, 2, "train.learning_rate"
    spec = {
        "name": "population",
        "family": "narrow_resnet",
        "data": {"name": "digits", "train": 200, "validation": 100, "test": 50, "image_size": 16},
        "fixed": {"model.channels": [8, 16, 16, 16], "train.batch_size": 25, "train.max_epochs": epochs},
        "space": {rate: {"kind": "float", "low": 1e-5, "high": 1e-1, "log": True}},
        "search": {"trials": 4, "seed": 3, "pbt": {"interval": interval}},
        "objectives": [{"metric": "validation/loss", "mode": "min"}],
    }
    sweep_id = str(stack.ask(lambda client: client.submit(spec))["id"])
    before = stack.killed["driver"]
    stack.until_measured(sweep_id, stack.random.randint(6, 16))
    stack.kill("driver")
    assert stack.killed["driver"] > before
    assert stack.until_ended(sweep_id)["state"] == "completed"
    trials = stack.client.trials(sweep_id)
    assert [trial["state"] for trial in trials] == ["completed"] * 4
    measured = stack.client.measurements(sweep_id)
    losses = {(one["trial_id"], one["step"]): one["metrics"]["validation/loss"] for one in measured}
    assert sorted(losses) == [(trial["id"], step) for trial in trials for step in range(1, epochs + 1)]
    assert len(measured) == len(losses)
    points = [dict(trial["exploits"][0]["before"] if trial["exploits"] else trial["point"]) for trial in trials]
    for step in range(interval, epochs, interval):
        members = [Member(i, -losses[trial["id"], step], points[i]) for i, trial in enumerate(trials)]
        wanted = copies(
            members,
            training=PopulationTraining(interval=interval),
            space=SearchSpace.from_dict(spec["space"]),
            seed=3,
            step=step,
        )
        made = [(i, one) for i, trial in enumerate(trials) for one in trial["exploits"] if one["step"] == step]
        assert [(i, one["source"], one["point"]) for i, one in made] == [
            (copy.number, trials[copy.source]["id"], copy.point) for copy in wanted
        ]
        for copy in wanted:
            points[copy.number] = copy.point
    for trial in trials:
        own = max([one["step"] for one in trial["exploits"]], default=0)
        assert trial["values"] == [min(losses[trial["id"], step] for step in range(own + 1, epochs + 1))]
