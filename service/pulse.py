"""Whether a program that lives also answers."""

from __future__ import annotations

import math
from typing import final

import httpx

from service.programs import Program

EVERY = 5.0
"""Seconds between two questions."""


@final
class Pulse:
    """Of one run of a program: asks from time to time whether it serves, and tells when it has not for too long.

    A program without a limit to its patience is not asked.

    Args:
        program: says how one asks, and how long a silence may last.
        started: when this run began, by the watch that `lost` goes by.
        start_limit: seconds that it has until its first answer.
    """

    def __init__(self, program: Program, *, started: float, start_limit: float) -> None:
        self._program, self._limit = program, start_limit
        self._asked, self._unanswered = started, 0

    def heard(self) -> None:
        """It has answered."""
        self._unanswered, self._limit = 0, self._program.patience

    def lost(self, now: float, client: httpx.Client) -> bool:
        """It has been silent for longer than it may.

        Counted in questions: after a halt of the whole machine one without an answer says nothing.
        """
        if math.isinf(self._program.patience) or now - self._asked < EVERY:
            return False
        self._asked = now
        if self._program.serves(client):
            self.heard()
        else:
            self._unanswered += 1
        return self._unanswered * EVERY > self._limit
