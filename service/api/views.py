"""The shapes of answers. They name every field themselves, so that nothing of a noun is shown by accident."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer, WithJsonSchema

from service.api.strict_json import without_nan
from service.domain import EventKind, SweepState, TrialState

# Pydantic would make NaN a null where it does not know that a number is meant.
Data = Annotated[Mapping[str, Any], PlainSerializer(without_nan, return_type=Mapping[str, Any])]

Number = Annotated[float, WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]})]
"""A number, or the text that stands for one that JSON has not."""


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


class ExploitView(View):
    """A trial took over another's weights and went on with other settings: population-based training."""

    step: int
    """After this one."""
    source: str
    """Id of the trial whose weights it took over."""
    before: Mapping[str, Any]
    """Its searched settings until then."""
    point: Mapping[str, Any]
    """Its searched settings from then on."""


class TrialView(View):
    """One point of a sweep and what became of it."""

    id: str
    sweep_id: str
    number: int
    """0, 1, 2, ... in the order in which the points were chosen."""
    repeat: int
    """0, 1, 2, ... among the trials of its point, which have numbers in a row and differ in their seeds only."""
    point: Mapping[str, Any]
    """The searched settings, by dotted name, as they are now."""
    exploits: list[ExploitView]
    """What population-based training made of it, by step."""
    state: TrialState
    reason: str
    values: tuple[Number, ...] | None
    """One an objective, in the spec's order, measured with the weights that were kept."""
    step: int
    """Steps (by default epochs) done."""
    weights: Literal["none", "kept", "removed"]
    """kept: others can start from it, and it can be analyzed. removed: the sweep needed it no more
    (`resources.keep_best`). none: it has written none yet."""
    created_at: datetime
    finished_at: datetime | None


class ModelView(View):
    """A version of a model: the kept weights of one trial."""

    name: str
    version: int
    sweep_id: str
    trial_id: str
    value: Number
    """The trial's value of the sweep's first objective."""
    created_at: datetime


class SweepDetail(SweepView):
    """A sweep, how far it is, and what it found."""

    spec: Mapping[str, Any]
    """As it was submitted, every default filled in."""
    counts: Mapping[TrialState, int]
    """How many trials are in each state; `spec.search.trials` times `repeats` to come in all."""
    best: TrialView | None
    """The completed trial with the best value of the first objective."""
    waiting: str
    """Why it does not run yet, or begins no trials; empty where it does, or has ended."""
    mlflow_url: str | None
    """Its page in MLflow, once it is there."""
    tracked: int
    """The number of the newest event that MLflow has."""


class FirstPoint(View):
    """A point that a sweep would try."""

    number: int
    """0, 1, 2, ... in the order in which they are chosen."""
    point: Mapping[str, Any]
    """The searched settings, by dotted name."""
    steps: int
    """Steps (by default epochs) of its training, if nothing ends it before."""


class Preview(View):
    """What a sweep would be."""

    spec: Mapping[str, Any]
    """With every default filled in."""
    trials: int
    """So many in all."""
    first: list[FirstPoint]
    """The first of its points. Later ones follow from results; these too, where the sweep tries fewer at a time."""
    nodes: list[Mapping[str, float]] | None
    """What each node of the cluster has in all; null: the cluster does not answer."""
    at_once: int | None
    """So many of its trials run at a time on these nodes, when they have nothing else to do."""


class Page(View):
    """Base of all lists that are read page by page."""

    next_page_token: str | None
    """`page_token` of the next page; null: this is the last one."""


class Sweeps(Page):
    """A page of sweeps, newest first."""

    sweeps: list[SweepView]


class Trials(Page):
    """A page of a sweep's trials, by number."""

    trials: list[TrialView]


class MeasurementView(View):
    """What a trial reported after a step (by default an epoch)."""

    trial_id: str
    step: int
    """Counted from 1."""
    at: datetime
    metrics: Mapping[str, Number]
    """By name, `validation/accuracy`."""


class Measurements(Page):
    """A page of what the trials of a sweep reported, by trial and step."""

    measurements: list[MeasurementView]


class EventView(View):
    """Something that happened in a sweep."""

    number: int
    """1, 2, 3, ... within the sweep."""
    at: datetime
    kind: EventKind
    data: Data
    """By kind. sweep: `state`, `reason`; of an extension also `spec`, as it is from now on. trial: the trial.
    measurement: `trial_id`, `step`, `metrics`. model: the version. progress: `what`, `done`, `total`. wait: `reason`,
    why no trial begins; empty where they do again. exploit: `trial_id`, `step`, `source`, `before`, `point`,
    `checkpoint`."""


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


class Models(Page):
    """A page of the champions of all models, by name."""

    models: list[ModelView]


class EngineView(View):
    """What runs a version that is in memory."""

    version: int
    engine: str
    """`openvino`, `onnxruntime`, `cuda` or `eager` (PyTorch)."""
    ready: bool
    """False: a faster engine is being made ready, and will take over."""
    notes: list[str]
    """Of each engine: why it cannot run the model, or how long it took."""


class ModelVersions(Page):
    """A page of the versions of a model, newest first; the champion answers."""

    name: str
    champion: int
    """The version that answers unless a request names another."""
    versions: list[ModelView]
    loaded: list[EngineView]
    """Those in memory here."""


class PromotionView(View):
    """A version became its model's champion."""

    number: int
    """1, 2, 3, ... within the model, with gaps where sweeps were deleted."""
    version: int
    kind: Literal["registered", "promoted", "rolled back"]
    """By a better trial, by a person, or by a person who undid the last promotion."""
    at: datetime
    by: str
    """The API key that asked for it, or `anonymous`; empty: a sweep did it."""
    reason: str


class Promotions(Page):
    """A page of the changes of a model's champion, newest first."""

    promotions: list[PromotionView]


class Predictions(View):
    """What a model says about images, an answer each, in their order."""

    model: str
    version: int
    sweep_id: str
    trial_id: str
    predictions: list[dict[str, Any]]
    """Of a classifier: `class` and `probabilities` by class. Of a segmenter: `mask`, its `share` of the image and what
    it `covers`; a mask is run lengths, `counts` along the rows of its `size`, ground first, or a PNG in base64.
    Of a pose model: the camera's `position` x, y, z in metres and its `orientation`, a unit quaternion w, x, y, z.
    `evolution`, if asked for: the answers after step 1, 2, ...; the last is the answer itself."""


class DeedView(View):
    """Something that somebody changed."""

    number: int
    """1, 2, ... in the order in which it was recorded."""
    at: datetime
    actor: str
    """Id and name of the API key; `anonymous` without one, `console` for a command beside the database."""
    action: str
    """The operation: `submit_sweep`, `stop_sweep`, ..."""
    subject: str
    """What it changed: the path of a sweep or a model."""
    trace_id: str
    """Of the request, as in its `traceparent`."""


class Deeds(Page):
    """A page of what was changed, newest first."""

    deeds: list[DeedView]


class Health(View):
    """The process answers."""

    status: str = "ok"


class Readiness(View):
    """Whether the service can do its work, and what it lacks."""

    ready: bool
    parts: Mapping[str, str]
    """`ok`, or what is the matter, by part; where API keys are needed, only that one is `away`."""


def summary_of(kind: type) -> str:
    """The first line of a class's docstring, which says what it is."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]
