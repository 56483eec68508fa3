"""Trials' checkpoints in the database: what needs one, and that it was removed. See `sql_store`."""

from __future__ import annotations

from dataclasses import fields

from sqlalchemy import Connection, Text, cast, select, update

from service.adapters import sql_reading
from service.adapters.sql_tables import model_versions, sweeps, trials
from service.domain import Sweep, SweepState, Trial
from service.errors import Conflict

_SWEEP = [sweeps.c[field.name] for field in fields(Sweep)]
_TRIAL = [trials.c[field.name] for field in fields(Trial)]


def forget(connection: Connection, trial_id: str) -> bool:
    """As `ports.Store.forget_checkpoint`, within a transaction.

    It holds the row of the trial's own sweep, for which `check_starts` waits: no other sweep can come to start from the
    trial in the same moment.
    """
    sql_reading.lock_sweep_of(connection, trial_id)
    trial = sql_reading.trial(connection, trial_id)
    if trial.over and trial.weights == "kept" and not _needed(connection, trial_id):
        connection.execute(update(trials).where(trials.c.id == trial_id).values(checkpoint=""))
        return True
    return trial.weights == "removed"


def check_starts(connection: Connection, sweep: Sweep) -> None:
    """Holds the trials that the sweep starts from, by the rows of their sweeps.

    Raises:
        Conflict: one is gone or goes with its sweep, or its weights have been removed.
    """
    if not sweep.starts_from:
        return
    named = trials.c.id.in_(sweep.starts_from)
    theirs = sweeps.c.id.in_(select(trials.c.sweep_id).where(named))
    connection.execute(select(sweeps.c.id).where(theirs).order_by(sweeps.c.id).with_for_update())
    staying = select(*_TRIAL).join(sweeps).where(named, sweeps.c.state != SweepState.DELETING)
    found = {row["id"]: Trial(**row) for row in connection.execute(staying).mappings()}
    for trial_id in sorted(sweep.starts_from):
        if trial_id not in found:
            raise Conflict(f"trial {trial_id} is deleted with its sweep")
        if found[trial_id].weights == "removed":
            raise Conflict(found[trial_id].no_weights)


def check_unneeded(connection: Connection, sweep_id: str) -> None:
    """Raises Conflict where a sweep that has not ended starts from a trial of this one, whose row is held."""
    over = [state for state in SweepState if state.final or state is SweepState.DELETING]
    starting = select(*_SWEEP).where(cast(sweeps.c.spec, Text).contains("trial:"), sweeps.c.state.not_in(over))
    for row in connection.execute(starting).mappings().all():
        named = select(trials.c.id).where(trials.c.sweep_id == sweep_id, trials.c.id.in_(Sweep(**row).starts_from))
        trial_id = connection.scalar(named.order_by(trials.c.id).limit(1))
        if trial_id is not None:
            raise Conflict(f"sweep {row['id']} starts from trial {trial_id}, and has not ended")


def _needed(connection: Connection, trial_id: str) -> bool:
    """A model version is of the trial, or a sweep that is not being deleted starts from it."""
    if connection.scalar(select(model_versions.c.version).where(model_versions.c.trial_id == trial_id).limit(1)):
        return True
    naming = select(*_SWEEP).where(
        cast(sweeps.c.spec, Text).contains(f"trial:{trial_id}", autoescape=True),
        sweeps.c.state != SweepState.DELETING,
    )
    return any(trial_id in Sweep(**row).starts_from for row in connection.execute(naming).mappings())
