"""Sweeps: what they found."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from service.api.pages import Limit, PageToken, page, place
from service.api.parts import Here
from service.api.result_views import Curve, Curves, Importance, Leaderboard, Pareto, PointView
from service.api.versions import VERSIONED, Versioned
from service.domain import Measurement, Sweep, TrialState
from service.errors import Conflict, NotFound
from service.leaderboards import place_of
from service.points import Known, Result
from service.spec import SweepSpec
from trainables.config import nearest
from trainables.reported import REPORTED

router = APIRouter(prefix="/v1/sweeps/{sweep_id}", tags=["sweeps"])
_PLACE = (int, float, int)
_FOR_TASKS = ("validation/", "test/")


@router.get("/leaderboard", responses=VERSIONED)
def get_leaderboard(
    sweep_id: str, here: Here, version: Versioned, limit: Limit = 100, page_token: PageToken = None
) -> Leaderboard:
    """The points of a sweep that have a completed trial, best first, a page at a time."""
    found = here.leaderboards.page(sweep_id, limit=limit + 1, after=place(page_token, *_PLACE))
    version.is_(_shown(found))
    points, token = page(found, limit, place_of)
    return Leaderboard(points=[PointView.model_validate(result) for result in points], next_page_token=token)


@router.get("/pareto", responses=VERSIONED)
def get_pareto(
    sweep_id: str, here: Here, version: Versioned, limit: Limit = 100, page_token: PageToken = None
) -> Pareto:
    """The Pareto front of a sweep with several objectives: the points that no other one beats in everything.

    By the first objective, best first, a page at a time. A sweep with one objective has none: 422.
    """
    objectives = here.store.sweep(sweep_id).spec["objectives"]
    if len(objectives) == 1:
        message = f"need a sweep with several objectives, {sweep_id} has one: {objectives[0]['metric']}"
        raise RequestValidationError([{"loc": ("path", "sweep_id"), "msg": message}])
    found = here.leaderboards.page(sweep_id, limit=limit + 1, after=place(page_token, *_PLACE))
    version.is_(_shown(found))
    points, token = page([result for result in found if result.front == 1], limit, place_of)
    return Pareto(
        objectives=objectives,
        points=[PointView.model_validate(result) for result in points],
        next_page_token=token,
    )


@router.get("/importance", responses=VERSIONED)
def get_importance(
    sweep_id: str,
    here: Here,
    version: Versioned,
    objective: Annotated[str | None, Query(description="Of which objective's spread; default: the first")] = None,
) -> Importance:
    """How much each searched parameter matters: its share in the spread of an objective (PED-ANOVA), largest first.

    Parameters that are not active at every point are left out. Too few completed points, or points too much alike: 409.
    """
    sweep = here.store.sweep(sweep_id)
    metrics = [one["metric"] for one in sweep.spec["objectives"]]
    chosen = metrics[0] if objective is None else objective
    if chosen not in metrics:
        message = f"need an objective of the sweep, {', '.join(metrics)}; got {chosen!r}"
        raise RequestValidationError([{"loc": ("query", "objective"), "msg": message}])
    version.is_(here.leaderboards.version(sweep_id), chosen)
    from service.adapters.optuna_search import ENOUGH, Search  # takes its time to import

    points = here.leaderboards.whole(sweep_id)
    index = metrics.index(chosen)
    if len(points) < ENOUGH:
        raise Conflict(f"need {ENOUGH} completed points to tell what matters, sweep {sweep_id} has {len(points)}")
    if len({result.values[index] for result in points}) == 1:
        raise Conflict(f"need points that differ in {chosen}, all {len(points)} have {points[0].values[index]:g}")
    known = [Known(result.point, result.values) for result in points]
    shares = Search(SweepSpec.from_dict(sweep.spec), known=known).importances(index)
    if not shares:
        raise Conflict(f"need a parameter that is searched at all {len(points)} completed points, there is none")
    return Importance(
        objective=chosen, points=len(points), trials=sum(len(result.trials) for result in points), importances=shares
    )


@router.get("/curves", responses=VERSIONED)
def get_curves(
    sweep_id: str,
    here: Here,
    version: Versioned,
    metric: Annotated[
        list[str] | None, Query(description="Which; may be given many times; default: the first objective")
    ] = None,
    trial: Annotated[list[str] | None, Query(description="Only these trials; may be given many times")] = None,
    state: Annotated[list[TrialState] | None, Query(description="Only these states; may be given many times")] = None,
    points: Annotated[
        int | None,
        Query(ge=1, le=100_000, description="At most so many of each curve, evenly spaced, the last one among them"),
    ] = None,
    limit: Limit = 100,
    page_token: PageToken = None,
) -> Curves:
    """Learning curves: what trials reported after each step, as columns; by number, a page of trials at a time.

    Where a trial did not report a metric there is a null.
    """
    sweep = here.store.sweep(sweep_id)
    version.is_(sweep.last_event)
    metrics = list(dict.fromkeys(metric or [sweep.spec["objectives"][0]["metric"]]))
    (after,) = place(page_token, int) or (None,)
    if trial:
        trials = sorted((here.store.trial(one) for one in set(trial)), key=lambda one: one.number)
        for one in trials:
            if one.sweep_id != sweep_id:
                raise NotFound(f"there is no trial {one.id!r} in sweep {sweep_id}")
        trials = [one for one in trials if (not state or one.state in state) and (after is None or one.number > after)]
    else:
        trials = here.store.trials(sweep_id, states=state or (), limit=limit + 1, after=after)
    shown, token = page(trials, limit, lambda one: (one.number,))
    measured: dict[str, list[Measurement]] = {one.id: [] for one in shown}
    for measurement in here.store.curves(sweep_id, list(measured), points=points):
        measured[measurement.trial_id].append(measurement)
    reported = {name for found in measured.values() for one in found for name in one.metrics}
    if after is None:  # later pages are those of metrics that somebody has
        _check(metrics, reported, sweep)
    return Curves(
        metrics=metrics,
        unmeasured=[name for name in metrics if name not in reported],
        curves=[
            Curve(
                trial_id=one.id,
                number=one.number,
                state=one.state,
                steps=[measurement.step for measurement in measured[one.id]],
                values={name: [m.metrics.get(name) for m in measured[one.id]] for name in metrics},
            )
            for one in shown
        ],
        next_page_token=token,
    )


def _shown(found: list[Result]) -> list[object]:
    """All that a page of points depends on: what a trial has completed with never changes."""
    return [(one.number, one.front, [(trial.id, trial.weights) for trial in one.trials]) for one in found]


def _check(metrics: list[str], reported: set[str], sweep: Sweep) -> None:
    if reported:
        wrong, known, who = [name for name in metrics if name not in reported], reported, "none of these trials reports"
    elif wrong := [name for name in metrics if "/" not in name or name.startswith(_FOR_TASKS)]:
        # Nothing is measured yet. What is reported of the training and of a family's weights is seen then; the task's
        # measures, and the names without a slash, are known now.
        spec = SweepSpec.from_dict(sweep.spec)
        tasks = {type(spec.trial(point).data.task) for point in spec.space.corners()}
        known = {*REPORTED, *(f"{split}{one}" for split in _FOR_TASKS for task in tasks for one in task.METRICS)}
        wrong, who = [name for name in wrong if name not in known], f"no trial of sweep {sweep.id} will report"
    faults = [
        {"loc": ("query", "metric", metrics.index(name)), "msg": f"{who} {name!r}; {nearest(name, sorted(known))}"}
        for name in wrong
    ]
    if faults:
        raise RequestValidationError(faults)
