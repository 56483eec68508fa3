"""What sweeps found: their best trials, and the champions that these make."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from service.domain import ModelVersion, Sweep, Trial, TrialState
from service.errors import Conflict
from service.ports import Store

logger = logging.getLogger(__name__)


def best_trials(store: Store, sweep_id: str, *, limit: int | None = None) -> list[Trial]:
    """The sweep's completed trials by its first objective, best first; equals by number."""
    return store.best_trials(sweep_id, mode=_mode(store.sweep(sweep_id)), limit=limit)


def offer_champion(store: Store, trial_id: str, *, at: datetime) -> ModelVersion | None:
    """Makes a completed trial the champion of its sweep's name, if it deserves it, and returns its version.

    Where the present champion was judged as this sweep judges (same objective, same data), the better value wins, and
    the champion stays on a tie. Values of other objectives or data do not compare: there the champion of an earlier
    sweep yields to any trial of a later one, and never the other way round.
    """
    while True:
        trial = store.trial(trial_id)
        if trial.state is not TrialState.COMPLETED or trial.weights != "kept":
            return None
        assert trial.values, "a completed trial has values"
        sweep = store.sweep(trial.sweep_id)
        promotions = store.promotions(sweep.name)  # first: what is promoted meanwhile makes `after` fail
        champion = store.champion(sweep.name) if promotions else None
        if champion is not None and champion.trial_id == trial_id:
            return champion
        if champion is not None and not _deserves(trial.values[0], sweep, champion, store.sweep(champion.sweep_id)):
            return None
        try:
            return store.add_model_version(
                name=sweep.name,
                sweep_id=sweep.id,
                trial_id=trial_id,
                value=trial.values[0],
                path=f"{trial.checkpoint}/model",
                at=at,
                after=promotions[0].number if promotions else 0,
            )
        except Conflict:
            logger.info("another trial became champion of %s meanwhile; comparing with that one", sweep.name)


def _mode(sweep: Sweep) -> Literal["min", "max"]:
    mode: Literal["min", "max"] = sweep.spec["objectives"][0]["mode"]
    return mode


def _deserves(value: float, sweep: Sweep, champion: ModelVersion, champions: Sweep) -> bool:
    if _judged_by(sweep.spec) == _judged_by(champions.spec):
        return value > champion.value if _mode(sweep) == "max" else value < champion.value
    return (champions.created_at, champions.id) < (sweep.created_at, sweep.id)


def _judged_by(spec: Mapping[str, Any]) -> tuple[object, ...]:
    """What two sweeps must share for their values to compare: the objective and every setting of the data."""
    fixed, searched = (
        {name.removeprefix("data."): value for name, value in spec[part].items() if name.startswith("data.")}
        for part in ("fixed", "space")
    )
    return spec["objectives"][0], {**spec["data"], **fixed}, searched
