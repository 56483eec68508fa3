"""SIGKILL, at random moments and more than once a sweep, to every program of a running stack."""

from __future__ import annotations

import os
from typing import Any

import pytest

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
    """Three times in one sweep; a sweep's driver dies with Ray, and counts."""
    sweep_id = stack.sweep(f"again-{program.lower()}")
    before = stack.killed[program]
    for _ in range(2 if program in ("Ray", "driver") else 3):
        stack.until_measured(sweep_id, stack.random.randint(1, stack.TRIALS * stack.EPOCHS // 8))
        stack.kill(program)
    assert stack.killed[program] >= before + 2
    stack.assert_nothing_is_lost(sweep_id, undisturbed)
