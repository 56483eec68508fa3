"""What trials report, in the database: the write that a sweep makes again and again.

Statements are built once, and there are as few as can be, since each is a round trip to a database server.
"""

from __future__ import annotations

from dataclasses import fields

from sqlalchemy import Connection, bindparam, case, exists, func, insert, select, update

from service.adapters.sql_tables import events, measurements, sweeps, trials
from service.domain import TRIAL_MOVES, Measurement
from service.errors import NotFound

_LAST, _DEATHS = sweeps.c.last_event, sweeps.c.deaths
_VALUES = {column.name: bindparam(column.name, type_=column.type) for column in measurements.c}
_SAME = exists().where(measurements.c.trial_id == _VALUES["trial_id"], measurements.c.step == _VALUES["step"])
_COUNT = (
    update(sweeps)
    .where(sweeps.c.id == select(trials.c.sweep_id).where(trials.c.id == _VALUES["trial_id"]).scalar_subquery())
    .values(last_event=_LAST + 1, deaths=case((_DEATHS == 0, 0), (_SAME, _DEATHS), else_=0))  # mostly there are none
    .returning(sweeps.c.id, _LAST)
)
_DISCOUNT = update(sweeps).where(sweeps.c.id == bindparam("of_sweep")).values(last_event=_LAST - 1)
_KEEP = (
    insert(measurements)
    .from_select(list(_VALUES), select(*_VALUES.values()).where(~_SAME))
    .returning(measurements.c.step)
)
_STEP, _CHECKPOINT = bindparam("to_step", type_=trials.c.step.type), bindparam("to", type_=trials.c.checkpoint.type)
_OVER = trials.c.state.in_([state for state, moves in TRIAL_MOVES.items() if not moves])
_ADVANCE = (
    update(trials)
    .where(trials.c.id == bindparam("of_trial"))
    .values(step=case((trials.c.step < _STEP, _STEP), else_=trials.c.step))
    .values(checkpoint=case((_OVER, trials.c.checkpoint), else_=func.coalesce(_CHECKPOINT, trials.c.checkpoint)))
)
_TELL = insert(events)


def add(connection: Connection, measurement: Measurement, *, checkpoint: str | None) -> bool:
    """As `ports.Store.add_measurement`, within a transaction. Taking the event's number locks the sweep's row."""
    trial_id, step = measurement.trial_id, measurement.step
    counted = connection.execute(_COUNT, {"trial_id": trial_id, "step": step}).one_or_none()
    if counted is None:
        raise NotFound(f"there is no trial {trial_id!r}")
    sweep_id, number = counted
    row = {field.name: getattr(measurement, field.name) for field in fields(measurement)}
    new = connection.execute(_KEEP, row).one_or_none() is not None
    connection.execute(_ADVANCE, {"of_trial": trial_id, "to_step": step, "to": checkpoint})
    if not new:
        connection.execute(_DISCOUNT, {"of_sweep": sweep_id})
        return False
    data = {"trial_id": trial_id, "step": step, "metrics": measurement.metrics}
    told = {"sweep_id": sweep_id, "number": number, "at": measurement.at, "kind": "measurement", "data": data}
    connection.execute(_TELL, told)
    return True
