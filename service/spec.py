"""A sweep spec: what a user may POST, checked whole before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, final

from search_spaces import SearchSpace, SpaceError, plain, same
from service.errors import InvalidSpec
from service.plan import ACCURACY, SIZES, Objective, Resources, Search, Stop
from service.spec_reader import KEYS, NAME, SpecReader, dotted
from trainables.config import ConfigError, Fault, Path, shown
from trainables.data.datasets import DATASETS
from trainables.families import FAMILIES
from trainables.trial import SECTIONS, TrialConfig, nest

MAX_VALUES = 5000
"""Values in a spec, at most: far more than any sweep needs, few enough to check while a client waits."""
MAX_SPACE_VALUES = 1000
"""Of them in the space, at most: each end and choice is a trial or two to check, and is compared with the others."""
LOOKS = 32
"""Points inside a space, and as many corners at random, that are tried before a sweep is taken: some 20 ms of work."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A legal sweep: every corner of `space`, with `data` and `fixed`, is a legal trial. Made by `from_dict`."""

    name: str
    family: str
    data: Mapping[str, Any]
    """The dataset's `name`, and all of its settings that are neither fixed nor searched."""
    fixed: Mapping[str, Any]
    """Settings that all trials share, by dotted name."""
    space: SearchSpace
    """What is left to search once `data` and `fixed` are set."""
    search: Search
    stop: Stop
    objectives: tuple[Objective, ...]
    resources: Resources

    @classmethod
    def from_dict(cls, values: Any) -> SweepSpec:
        """The spec that a document describes (JSON types only); what is left out takes its default.

        Raises:
            InvalidSpec: with every fault, each at its place in the document.
        """
        reader = SpecReader(_document(values))
        spec = cls(**{key: getattr(reader, key) for key in KEYS})
        faults = reader.faults or list(spec._corner_faults())
        if faults:
            raise InvalidSpec(list(dict.fromkeys(faults)))
        data = spec.trial(spec.space.corners()[0]).data.to_dict()
        elsewhere = {name.split(".")[1] for name in (*spec.fixed, *spec.space) if name.startswith("data.")}
        return dataclasses.replace(spec, data={key: data[key] for key in data if key not in elsewhere})

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain data (JSON types only), every default filled in; `from_dict` gives back an equal spec."""
        return {
            "name": self.name,
            "family": self.family,
            "data": plain(self.data),
            "fixed": plain(self.fixed),
            "space": self.space.to_dict(),
            "search": self.search.to_dict(),
            "stop": self.stop.to_dict(),
            "objectives": [objective.to_dict() for objective in self.objectives],
            "resources": self.resources.to_dict(),
        }

    @property
    def objective(self) -> Objective:
        """What trials are compared by, the first if there are several: pruners and champions go by it."""
        return self.objectives[0]

    def trial(self, point: Mapping[str, Any], repeat: int = 0) -> TrialConfig:
        """A trial at a point of the space; repeats 0, 1, 2, ... have the seeds `train.seed`, `train.seed` + 1, ...

        Raises:
            ValueError: there is none, so the point is not of this space.
        """
        settings: dict[str, Any] = {"train.seed": self.search.seed, "train.monitor": self.objective.metric}
        if self.stop.patience is not None:
            settings["train.patience"] = self.stop.patience
        settings |= {**dotted(self.data), **self.fixed, **point}
        if repeat:
            settings["train.seed"] += repeat
        document = nest(settings)
        document["data"] = {**document.get("data", {}), "name": self.data["name"]}
        return TrialConfig.from_dict({"family": self.family, **document})

    def place(self, path: Path, point: Mapping[str, Any]) -> Path:
        """Where in the document the setting at `path` of the trial at this point got its value."""
        for i in range(len(path), 1, -1):
            name, rest = ".".join(map(str, path[:i])), path[i:]
            if name in point:
                ends = (end for end, value in self.space[name].extremes() if same(value, point[name]))
                return ("space", name, *next(ends, ()), *rest)
            if name in self.fixed:
                return ("fixed", name, *rest)
        if path == ("train", "monitor"):  # it is the first objective unless the document says otherwise
            return ("objectives", 0, "metric")
        if path == ("train", "patience"):
            return ("stop", "patience")
        return path if path[0] == "data" else ("fixed", ".".join(map(str, path)))

    def faults_at(self, point: Mapping[str, Any]) -> list[Fault]:
        """Why the point is no legal trial, each fault at its place in the document; empty: it is one."""
        try:
            self.trial(point)
        except ConfigError as error:
            return [Fault(self.place(fault.path, point), fault.message) for fault in error.faults]
        return []

    def inner_faults(self) -> Iterator[Fault]:
        """Rules that points break which are none of the `corners`: those to try first, and some at random.

        A rule may hold at both ends of a range, or concern three settings. A point that is not found so fails alone.
        """
        for i, first in enumerate(self.search.enqueue):
            yield from (Fault(("search", "enqueue", i), str(fault)) for fault in self.faults_at(first))
        rng, found = Random(0), dict[Path, Fault]()  # noqa: S311 - to be judged alike again, not to be secret
        for _ in range(LOOKS):
            for point in (self.space.sample(rng), self.space.corner(rng)):
                for fault in self.faults_at(point):
                    found.setdefault(fault.path, fault)
        yield from found.values()

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of what `from_dict` reads; the settings' names are the family's to say."""
        names = {"type": "object", "propertyNames": {"pattern": rf"^({'|'.join(SECTIONS)})\."}}
        data = {"type": "object", "properties": {"name": {"enum": sorted(DATASETS)}}, "required": ["name"]}
        space = {**SearchSpace.json_schema(), **names}
        objectives = {"type": "array", "items": Objective.json_schema(), "minItems": 1}
        return {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": f"^{NAME}$", "description": "of the sweep and of its model"},
                "family": {"enum": sorted(FAMILIES), "description": "the model family"},
                "data": {**data, "description": "the dataset's name and settings"},
                "fixed": {**names, "default": {}, "description": "settings that all trials share"},
                "space": {**space, "description": "settings that vary; left out: the family's default space"},
                "search": {**Search.json_schema(), "default": Search().to_dict()},
                "stop": {**Stop.json_schema(), "default": Stop().to_dict()},
                "objectives": {**objectives, "default": [ACCURACY.to_dict()]},
                "resources": {**Resources.json_schema(), "default": Resources().to_dict()},
            },
            "required": ["name", "family", "data"],
            "additionalProperties": False,
        }

    def _corner_faults(self) -> Iterator[Fault]:
        """Rules between settings that some corner of the space breaks."""
        for point in self.space.corners():
            try:
                trial = self.trial(point, self.search.repeats - 1)
            except ConfigError as error:
                yield from (Fault(self.place(fault.path, point), fault.message) for fault in error.faults)
                continue
            pbt = self.search.pbt
            if pbt is not None and pbt.interval >= trial.steps:
                message = f"need less than the {trial.steps} steps of a trial, got {pbt.interval}"
                yield Fault(("search", "pbt", "interval"), message)
            known = [*(f"validation/{name}" for name in trial.data.task.METRICS), *SIZES]
            for i, objective in enumerate(self.objectives):
                if objective.metric not in known:
                    message = f"need one of {', '.join(known)} on {trial.data.name}, got {shown(objective.metric)}"
                    yield Fault(("objectives", i, "metric"), message)


def _document(values: Any) -> dict[str, Any]:
    """A plain copy of the document, or InvalidSpec if it is no mapping, not JSON, or too large."""
    try:
        document = plain(values)
    except SpaceError as error:
        raise InvalidSpec([Fault(path, message) for path, message in error.faults]) from None
    if not isinstance(document, dict):
        raise InvalidSpec([Fault((), f"need a mapping, got {shown(document)}")])
    if _count(document) > MAX_VALUES:
        raise InvalidSpec([Fault((), f"need at most {MAX_VALUES} values in a spec, got {_count(document)}")])
    searched = _count(document.get("space"))
    if searched > MAX_SPACE_VALUES:
        raise InvalidSpec([Fault(("space",), f"need at most {MAX_SPACE_VALUES} values in a space, got {searched}")])
    return document


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return sum(1 + _count(item) for item in value.values())
    return sum(map(_count, value)) if isinstance(value, list) else 1
