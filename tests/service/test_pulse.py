"""When a program that lives, but does not answer, is given up."""

from __future__ import annotations

import math

import httpx
import pytest

from service.programs import Program
from service.pulse import EVERY, Pulse

PATIENCE, START_LIMIT = 6 * EVERY, 20 * EVERY


class Answers:
    """What a program says when it is asked, until it is told to say something else."""

    def __init__(self) -> None:
        self.good = True
        self.asked = 0

    def __call__(self, client: httpx.Client) -> bool:
        self.asked += 1
        return self.good


@pytest.fixture(name="answers")
def _answers() -> Answers:
    return Answers()


def made(answers: Answers, *, patience: float = PATIENCE) -> Pulse:
    """Of a program that says what `answers` has."""
    program = Program(name="Ray", command=["ray"], serves=answers, patience=patience, grace=1.0)
    return Pulse(program, started=0.0, start_limit=START_LIMIT)


def turns_until_lost(one: Pulse, *, began: float = 0.0, most: int = 100) -> int:
    """How many questions it takes; `most` where that many do not do."""
    with httpx.Client() as client:
        return next((turn for turn in range(1, most) if one.lost(began + turn * EVERY, client)), most)


def test_a_program_that_falls_silent_is_lost_after_its_patience(answers: Answers) -> None:
    """Not after one question that it had no time for; and an answer begins the count anew."""
    one = made(answers)
    assert turns_until_lost(one) == 100
    answers.good = False
    assert turns_until_lost(one, began=1000.0, most=7) == 7
    answers.good = True
    assert turns_until_lost(one, began=2000.0, most=2) == 2
    answers.good = False
    assert turns_until_lost(one, began=3000.0) == 7


def test_a_program_that_starts_has_longer(answers: Answers) -> None:
    """Until its first answer; the stack may have heard that one itself."""
    answers.good = False
    assert turns_until_lost(made(answers)) == START_LIMIT / EVERY + 1
    started = made(answers)
    started.heard()
    assert turns_until_lost(started) == PATIENCE / EVERY + 1


def test_a_machine_that_was_halted_costs_no_program_its_life(answers: Answers) -> None:
    """An hour passes between two looks, and the first question after it is not answered in time."""
    one = made(answers)
    one.heard()
    answers.good = False
    with httpx.Client() as client:
        assert not one.lost(3600.0, client)


def test_a_program_is_not_asked_all_the_time(answers: Answers) -> None:
    """Once in `EVERY` seconds; one whose silence means nothing never."""
    with httpx.Client() as client:
        one, patient = made(answers), made(answers, patience=math.inf)
        for tenth in range(1, int(10 * EVERY) + 1):
            one.lost(tenth / 10, client)
            patient.lost(tenth / 10, client)
    assert answers.asked == 1
