"""States move by one table, and nouns become plain data."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.domain import SWEEP_MOVES, TRIAL_MOVES, Sweep, SweepState, Trial, TrialState, as_data
from service.errors import Conflict, IllegalMove
from service.port_values import Job

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
SWEEP = Sweep(id="abcdefgh", name="digits", spec={}, created_at=NOW)
TRIAL = Trial(id="abcdefgh-0000", sweep_id="abcdefgh", number=0, point={"x": [1, 2]}, created_at=NOW)


def test_the_tables_of_moves_cover_every_state() -> None:
    """A sweep's driver ends in a state without one; only a user's verb leads out of those."""
    assert set(SWEEP_MOVES) == set(SweepState)
    assert set(TRIAL_MOVES) == set(TrialState)
    without = {state for state in SweepState if not state.driven}
    for state in without - {SweepState.QUEUED}:
        assert SWEEP_MOVES[state] <= without
    assert not any(SweepState.DELETING in SWEEP_MOVES[state] for state in SweepState if state.driven)
    assert not any(TrialState.RUNNING in TRIAL_MOVES[state] for state in TrialState if state.final)


def test_a_sweep_that_goes_on_counts_only_the_time_it_ran() -> None:
    """Queued, paused and ended times are left out; its first start is kept, and its deaths are forgotten."""
    minute = timedelta(minutes=1)
    sweep = replace(SWEEP, deaths=3).to(SweepState.RUNNING, at=NOW)
    assert sweep.seconds_run(NOW + minute) == 60
    paused = sweep.to(SweepState.PAUSING, at=NOW + minute).to(SweepState.PAUSED, at=NOW + 2 * minute)
    assert (paused.seconds_run(NOW + 60 * minute), paused.finished_at) == (120, None)
    again = paused.to(SweepState.QUEUED, at=NOW + 5 * minute)
    assert again.deaths == 0
    again = again.to(SweepState.STARTING, at=NOW + 6 * minute).to(SweepState.RUNNING, at=NOW + 7 * minute)
    assert again.started_at == NOW
    assert again.seconds_run(NOW + 8 * minute) == 180
    assert again.to(SweepState.COMPLETED, at=NOW + 9 * minute).ran == 240


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
