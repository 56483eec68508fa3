"""States move by one table, and nouns become plain data."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest

from service.domain import (
    SWEEP_MOVES,
    TRIAL_MOVES,
    Conflict,
    IllegalMove,
    Job,
    Sweep,
    SweepState,
    Trial,
    TrialState,
    as_data,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
SWEEP = Sweep(id="abcdefgh", name="digits", spec={}, created_at=NOW)
TRIAL = Trial(id="abcdefgh-0000", sweep_id="abcdefgh", number=0, point={"x": [1, 2]}, created_at=NOW)


def test_the_tables_of_moves_cover_every_state() -> None:
    """And final states are exactly those that nothing follows."""
    assert set(SWEEP_MOVES) == set(SweepState)
    assert set(TRIAL_MOVES) == set(TrialState)
    assert {state for state, next_ in SWEEP_MOVES.items() if not next_} == {s for s in SweepState if s.final}
    assert {state for state, next_ in TRIAL_MOVES.items() if not next_} == {s for s in TrialState if s.final}


def test_a_sweep_notes_when_it_started_moved_and_finished() -> None:
    """Each time is set by the move that it belongs to and kept by the others."""
    running = SWEEP.to(SweepState.RUNNING, at=NOW)
    stopping = running.to(SweepState.STOPPING, at=LATER, reason="stopped on request")
    assert (running.started_at, running.moved_at, running.finished_at) == (NOW, NOW, None)
    assert (stopping.started_at, stopping.moved_at, stopping.finished_at) == (NOW, LATER, None)
    assert stopping.reason == "stopped on request"
    assert stopping.to(SweepState.STOPPED, at=LATER).finished_at == LATER


@pytest.mark.parametrize("state", [SweepState.QUEUED, SweepState.STOPPING, SweepState.COMPLETED])
def test_a_sweep_cannot_skip_states(state: SweepState) -> None:
    """The error is a conflict that names both states."""
    with pytest.raises(IllegalMove, match=f"sweep abcdefgh is queued and cannot become {state}") as caught:
        SWEEP.to(state, at=NOW)
    assert isinstance(caught.value, Conflict)


@pytest.mark.parametrize("values", [None, (), (math.nan,), (0.5, math.inf)])
def test_a_completed_trial_has_finite_values(values: tuple[float, ...] | None) -> None:
    """Without them it cannot be compared, so it cannot complete."""
    with pytest.raises(ValueError, match="needs finite values"):
        TRIAL.to(TrialState.COMPLETED, at=NOW, values=values)


def test_a_trial_keeps_the_values_that_it_had() -> None:
    """Where its end brings no others."""
    stopped = TRIAL.to(TrialState.STOPPED, at=LATER, values=(0.5,))
    assert (stopped.values, stopped.finished_at) == ((0.5,), LATER)
    with pytest.raises(IllegalMove, match="is stopped and cannot become completed"):
        stopped.to(TrialState.COMPLETED, at=LATER, values=(0.5,))


def test_a_reason_is_text_that_any_database_takes() -> None:
    """The output of a crashed process may hold NUL and halves of characters."""
    failed = SWEEP.to(SweepState.FAILED, at=NOW, reason="segfault\0 at \ud800 é")
    assert failed.reason == "segfault at ? é"


def test_nouns_become_plain_data() -> None:
    """States, times and tuples as JSON has them."""
    ended = TRIAL.to(TrialState.COMPLETED, at=LATER, values=(0.5,))
    data = as_data(ended)
    assert json.loads(json.dumps(data)) == data
    assert (data["state"], data["values"], data["finished_at"]) == ("completed", [0.5], "2026-01-01T00:01:00+00:00")


def test_a_job_is_alive_until_it_has_ended() -> None:
    """A job that the cluster does not know is not alive."""
    assert [state for state in ("pending", "running", "missing", "failed") if Job(state=state).alive] == [
        "pending",
        "running",
    ]
