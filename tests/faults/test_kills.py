"""SIGKILL, at random moments and more than once a sweep, to every program of a running stack."""

from __future__ import annotations

import os
from typing import Any

import pytest

from search_spaces import SearchSpace
from service.plan import PopulationTraining
from service.population import Member, copies

pytestmark = pytest.mark.slow
LONG = pytest.mark.skipif(not os.environ.get("SWEEPSERVE_LONG_TESTS"), reason="SWEEPSERVE_LONG_TESTS is not set")
"""Each program by itself is for the long run: the short one kills them all in one sweep."""


def test_every_program_in_turn(stack: Any, undisturbed: list[dict[str, Any]]) -> None:
    """One sweep, through which each program dies once, in random order, and at last everything at once."""
    sweep_id = stack.sweep("in-turn")
    programs = ["API", "driver", "worker", "MLflow", "Ray"]
    stack.random.shuffle(programs)
    for program in programs:
        stack.until_measured(sweep_id, stack.random.randint(1, stack.TRIALS * stack.EPOCHS // 10))
        stack.kill(program)
    stack.until_measured(sweep_id, 1)
    stack.kill_everything()
    assert all(stack.killed[program] for program in [*programs, "everything"])
    stack.assert_nothing_is_lost(sweep_id, undisturbed)


@LONG
@pytest.mark.parametrize("program", ["API", "driver", "worker", "MLflow", "Ray"])
def test_one_program_again_and_again(stack: Any, undisturbed: list[dict[str, Any]], program: str) -> None:
    """Three times in one sweep; deaths of drivers, which die with Ray, and of a trial's workers count."""
    sweep_id = stack.sweep(f"again-{program.lower()}")
    before = stack.killed[program]
    for _ in range(2 if program in ("Ray", "driver", "worker") else 3):
        stack.until_measured(sweep_id, stack.random.randint(1, stack.TRIALS * stack.EPOCHS // 8))
        stack.kill(program)
    assert stack.killed[program] >= before + 2
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
