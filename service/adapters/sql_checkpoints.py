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
    """Holds the trials that the sweep starts from. Raises Conflict where the weights of one have been removed."""
    if not sweep.starts_from:
        return
    named = trials.c.id.in_(sweep.starts_from)
    theirs = sweeps.c.id.in_(select(trials.c.sweep_id).where(named))
    connection.execute(select(sweeps.c.id).where(theirs).order_by(sweeps.c.id).with_for_update())
    removed = select(*_TRIAL).where(named, trials.c.checkpoint == "").order_by(trials.c.id)
    for row in connection.execute(removed).mappings():
        raise Conflict(Trial(**row).no_weights)


def _needed(connection: Connection, trial_id: str) -> bool:
    """A model version is of the trial, or a sweep that is not being deleted starts from it."""
    if connection.scalar(select(model_versions.c.version).where(model_versions.c.trial_id == trial_id).limit(1)):
        return True
    naming = select(*_SWEEP).where(
        cast(sweeps.c.spec, Text).contains(f"trial:{trial_id}", autoescape=True),
        sweeps.c.state != SweepState.DELETING,
    )
    return any(trial_id in Sweep(**row).starts_from for row in connection.execute(naming).mappings())
