"""The shapes of answers. They name every field themselves, so that nothing of a noun is shown by accident."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer

from service.api.strict_json import without_nan
from service.domain import EventKind, SweepState, TrialState

# Pydantic would make NaN a null where it does not know that a number is meant.
Data = Annotated[Mapping[str, Any], PlainSerializer(without_nan, return_type=Mapping[str, Any])]


class View(BaseModel):
    """Base of all answers: read from a noun's attributes, described by the texts below the fields."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True, frozen=True)


class SweepView(View):
    """A sweep in a list."""

    id: str
    name: str
    """Its own, and that of the model it makes."""
    state: SweepState
    reason: str
    """Why it is in this state, where there is something to say."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    last_event: int
    """The number of its newest event."""


class TrialView(View):
    """One point of a sweep and what became of it."""

    id: str
    sweep_id: str
    number: int
    """0, 1, 2, ... in the order in which the points were chosen."""
    point: Mapping[str, Any]
    """The searched settings, by dotted name."""
    state: TrialState
    reason: str
    values: tuple[float, ...] | None
    """One an objective, in the spec's order, measured with the weights that were kept."""
    step: int
    """Epochs done."""
    created_at: datetime
    finished_at: datetime | None


class ModelView(View):
    """A version of a model: the kept weights of one trial."""

    name: str
    version: int
    sweep_id: str
    trial_id: str
    value: float
    """The trial's value of the sweep's first objective."""
    created_at: datetime


class SweepDetail(SweepView):
    """A sweep, how far it is, and what it found."""

    spec: Mapping[str, Any]
    """As it was submitted, every default filled in."""
    counts: Mapping[TrialState, int]
    """How many trials are in each state; there are `spec.search.trials` to come in all."""
    best: TrialView | None
    """The completed trial with the best value of the first objective."""
    mlflow_url: str | None
    """Its page in MLflow, once it is there."""
    tracked: int
    """The number of the newest event that MLflow has."""


class Sweeps(View):
    """A page of sweeps, newest first."""

    sweeps: list[SweepView]
    next_page_token: str | None
    """`page_token` of the next page; null: this is the last one."""


class Trials(View):
    """The trials of a sweep, by number or by rank."""

    trials: list[TrialView]


class MeasurementView(View):
    """What a trial reported after an epoch."""

    trial_id: str
    step: int
    """The epoch, counted from 1."""
    at: datetime
    metrics: Mapping[str, float]
    """By name, `validation/accuracy`."""


class Measurements(View):
    """What the trials of a sweep reported, by trial and step."""

    measurements: list[MeasurementView]


class EventView(View):
    """Something that happened in a sweep."""

    number: int
    """1, 2, 3, ... within the sweep."""
    at: datetime
    kind: EventKind
    data: Data
    """By kind. sweep: `state`, `reason`. trial: the trial. measurement: `trial_id`, `step`, `metrics`.
    model: the version. progress: `what`, `done`, `total`."""


class Events(View):
    """What happened in a sweep after a given event, in order."""

    events: list[EventView]


class FamilySummary(View):
    """A model family in a list."""

    name: str
    summary: str


class Families(View):
    """The model families that a sweep may search."""

    families: list[FamilySummary]


class FamilyView(FamilySummary):
    """What can be set in a trial of a family."""

    model: dict[str, Any]
    """JSON Schema of its own settings, `model.*`."""
    train: dict[str, Any]
    """JSON Schema of the settings of training, `train.*`."""
    space: dict[str, Any]
    """What a sweep of it searches that does not say."""


class DatasetView(View):
    """A dataset and what can be set of it."""

    name: str
    summary: str
    data: dict[str, Any]
    """JSON Schema of its settings, `data.*`."""


class Datasets(View):
    """The datasets that a sweep may learn."""

    datasets: list[DatasetView]


class Models(View):
    """The newest version of each model, by name."""

    models: list[ModelView]


class ModelVersions(View):
    """The versions of a model, newest first; the first one answers."""

    name: str
    versions: list[ModelView]


class Predictions(View):
    """What a model says about images, an answer each, in their order."""

    model: str
    version: int
    sweep_id: str
    trial_id: str
    predictions: list[dict[str, Any]]
    """Of a classifier: `class` and `probabilities` by class."""


class Health(View):
    """The process answers."""

    status: str = "ok"


class Readiness(View):
    """Whether the service can do its work, and what it lacks."""

    ready: bool
    parts: Mapping[str, str]
    """`ok`, or what is the matter, by part."""


def summary_of(kind: type) -> str:
    """The first line of a class's docstring, which says what it is."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]
