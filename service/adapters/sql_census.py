"""How many there are of what, in a few queries."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from service.adapters.sql_tables import sweeps, trials
from service.domain import SweepState, TrialState
from service.port_values import Census


def census(connection: Connection) -> Census:
    """The counts, within the connection's transaction."""
    running = (
        select(trials.c.sweep_id, func.count().label("running"))
        .where(trials.c.state == TrialState.RUNNING)
        .group_by(trials.c.sweep_id)
        .subquery()
    )
    sharing = connection.execute(
        select(sweeps.c.spec, running.c.running).join(running, running.c.sweep_id == sweeps.c.id)
    )
    by_state = select(sweeps.c.state, func.count()).group_by(sweeps.c.state)
    trials_by_state = select(trials.c.state, func.count()).group_by(trials.c.state)
    queued = func.coalesce(sweeps.c.moved_at, sweeps.c.created_at)
    return Census(
        sweeps=dict(connection.execute(by_state).all()),
        trials=dict(connection.execute(trials_by_state).all()),
        queued_since=connection.scalar(select(func.min(queued)).where(sweeps.c.state == SweepState.QUEUED)),
        untracked=connection.scalar(select(func.coalesce(func.sum(sweeps.c.last_event - sweeps.c.tracked), 0))) or 0,
        gpus=sum(float(spec["resources"]["gpus"]) * count for spec, count in sharing),
    )
