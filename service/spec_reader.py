"""Reads the document of a sweep spec and finds everything that is wrong with it, each fault with its place."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from search_spaces import Choice, Float, Int, SearchSpace, SpaceError, default_space, parameter_from_dict
from service import population
from service.plan import ACCURACY, SIZES, Objective, Resources, Search, Stop
from trainables.config import Config, ConfigError, Fault, Path, Setting, nearest, shown
from trainables.data.dataset import DatasetConfig
from trainables.data.datasets import DATASETS
from trainables.families import FAMILIES
from trainables.train_config import TrainConfig

C = TypeVar("C", bound=Config)
KEYS = ("name", "family", "data", "fixed", "space", "search", "stop", "objectives", "resources")
SCALE = "is applied (--scaled) or left out by `sweepserve submit`; do either before you send the rest"
"""What to do with a key that files have and sweeps do not."""
MAX_GRID = 10_000
"""Points in a grid, at most: they are listed while a client waits."""
NAME = r"[a-z0-9][a-z0-9._-]{0,62}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A place in the document that sets a setting: to one value, or to those of a parameter."""

    name: str
    path: Path
    values: Sequence[tuple[Path, Any]]
    parameter: Float | Int | Choice | None = None


class SpecReader:
    """The parts of one document. Reading goes on after a fault; a part with `faults` holds a stand-in."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.faults: list[Fault] = []
        for key in document:
            if key == "scale":
                self._fault((key,), SCALE)
            elif key not in KEYS:
                self._fault((key,), f"unknown key {shown(key)}; {nearest(key, KEYS)}")
        self.name = self._name()
        self.data = self._mapping("data", required=True)
        self.fixed = self._mapping("fixed")
        self.search = self._part("search", Search)
        self.stop = self._part("stop", Stop)
        self._default_to_a_population()
        self.objectives = self._objectives()
        self.resources = self._part("resources", Resources)
        self.family = str(document.get("family"))
        is_data = isinstance(document.get("data"), dict)  # if not, that is the fault, and not a missing name
        self._kinds: dict[str, type[Config] | None] = {
            "model": self._row(FAMILIES, "family", ("family",), document),
            "train": TrainConfig,
            "data": self._row(DATASETS, "dataset", ("data", "name"), self.data) if is_data else None,
        }
        self._settings = {
            f"{section}.{name}": setting
            for section, kind in self._kinds.items()
            if kind
            for name, setting in kind.settings().items()
        }
        if "objectives" not in document:
            self.objectives = self._usual_objectives()
        self.space, searched = self._space()
        entries = [
            *(_Entry(f"data.{key}", ("data", key), [((), value)]) for key, value in self.data.items() if key != "name"),
            *(_Entry(name, ("fixed", name), [((), value)]) for name, value in self.fixed.items()),
            *searched,
        ]
        self._check_overlaps(entries)
        self._check_settings(entries)
        self._check_search()
        if self.stop.patience is not None and any(entry.name == "train.patience" for entry in entries):
            self._fault(("stop", "patience"), "need it here or as train.patience, not both")

    def _fault(self, path: Path, message: str) -> None:
        self.faults.append(Fault(path, message))

    def _name(self) -> str:
        name = self._document.get("name")
        if "name" not in self._document:
            self._fault(("name",), "is required and missing")
        elif not isinstance(name, str) or not re.fullmatch(NAME, name):
            rule = "need 1 to 63 of a-z, 0-9, dot, hyphen and underscore, the first a letter or digit"
            self._fault(("name",), f"{rule}; got {shown(name)}")
        return str(name)

    def _mapping(self, key: str, *, required: bool = False) -> dict[str, Any]:
        value = self._document.get(key, {})
        if required and key not in self._document:
            self._fault((key,), "is required and missing")
        elif not isinstance(value, dict):
            self._fault((key,), f"need a mapping, got {shown(value)}")
        return value if isinstance(value, dict) else {}

    def _row(self, table: Mapping[str, type[C]], what: str, path: Path, place: Mapping[str, Any]) -> type[C] | None:
        key = str(path[-1])
        name = place.get(key)
        if isinstance(name, str) and name in table:
            return table[name]
        rule = f"unknown {what} {shown(name)}" if key in place else "is required and missing"
        self._fault(path, f"{rule}; {nearest(str(name), list(table))}")
        return None

    def _part(self, key: str, kind: type[C]) -> C:
        try:
            return kind.from_dict(self._document.get(key, {}))
        except ConfigError as error:
            self.faults.extend(fault.under(key) for fault in error.faults)
            return kind()

    def _default_to_a_population(self) -> None:
        """What is left out beside `search.pbt` is as it needs it."""
        if self.search.pbt is None:
            return
        if "sampler" not in self._document.get("search", {}):
            self.search = dataclasses.replace(self.search, sampler="quasi-random")
        stop = self._document.get("stop")
        if not isinstance(stop, dict) or "pruner" not in stop:
            self.stop = dataclasses.replace(self.stop, pruner="none")

    def _objectives(self) -> tuple[Objective, ...]:
        values = self._document.get("objectives", [ACCURACY.to_dict()])
        if not isinstance(values, list) or not values:
            self._fault(("objectives",), f"need a list of objectives, got {shown(values)}")
            return (ACCURACY,)
        read: list[Objective] = []
        for i, value in enumerate(values):
            try:
                objective = Objective.from_dict(value)
            except ConfigError as error:
                self.faults.extend(fault.under("objectives", i) for fault in error.faults)
                continue
            if objective in read:
                self._fault(("objectives", i), f"need objectives that differ, got {objective.metric} again")
            read.append(objective)
        if read and read[0].metric in SIZES:
            self._fault(("objectives", 0, "metric"), f"need what training improves first, got {read[0].metric}")
        return tuple(read) or (ACCURACY,)

    def _usual_objectives(self) -> tuple[Objective, ...]:
        """What the dataset's task is judged by."""
        kind = self._kinds["data"]
        own = {key: value for key, value in self.data.items() if key != "name"}
        fixed = {key[5:]: value for key, value in self.fixed.items() if key.startswith("data.")}
        try:
            data = kind.from_dict({**own, **fixed}) if kind is not None else None
        except ConfigError:  # is found again where the whole trial is checked
            data = None
        if not isinstance(data, DatasetConfig):
            return (ACCURACY,)
        metric, mode = next(iter(data.task.METRICS.items()))
        return (Objective(metric=f"validation/{metric}", mode=mode),)

    def _space(self) -> tuple[SearchSpace, list[_Entry]]:
        given = {**dotted(self.data), **self.fixed}
        if "space" not in self._document:
            space = default_space(self.family).given(given) if self._kinds["model"] else SearchSpace({})
            return space, [_Entry(name, ("space", name), p.extremes(), p) for name, p in space.items()]
        described = self._mapping("space")
        # A condition may name what is fixed, which is a parameter that can take one value only.
        constants = {name: Choice(values=(value,)).to_dict() for name, value in given.items()}
        entries = []
        for name, description in described.items():
            try:
                parameter = parameter_from_dict(description)
            except SpaceError:  # its faults are among those of the whole space
                entries.append(_Entry(name, ("space", name), ()))
                continue
            entries.append(_Entry(name, ("space", name), parameter.extremes(), parameter))
            for parent in parameter.when.keys() - constants.keys() - described.keys():
                message = "is neither searched nor fixed" if parent in self._settings else self._unknown(parent)
                self._fault(("space", name, "when", parent), message)
        try:
            return SearchSpace.from_dict({**constants, **described}).given(given), entries
        except SpaceError as error:
            said = {fault.path for fault in self.faults}
            faults = [Fault(("space", *path), message) for path, message in error.faults]
            self.faults.extend(fault for fault in faults if fault.path not in said)
            return SearchSpace({}), entries

    def _check_search(self) -> None:
        """The search fits the space; a grid's trials are all of it, unless the document says otherwise."""
        if self.search.repeats > 1 and "train.seed" in self.space:
            message = f"need 1 where train.seed is searched, got {self.search.repeats}: repeats differ in it"
            self._fault(("search", "repeats"), message)
        for i, point in enumerate(self.search.enqueue):
            try:
                self.space.check(point)
            except SpaceError as error:
                self.faults.extend(Fault(("search", "enqueue", i, *path), message) for path, message in error.faults)
        if len(self.search.enqueue) > self.search.trials:
            count = len(self.search.enqueue)
            self._fault(("search", "enqueue"), f"need at most the {self.search.trials} points tried, got {count}")
        reason = misfit(self.search, self.space, self.objectives)
        if reason is not None:
            self._fault(("search", "sampler"), reason)
        if self.search.pbt is not None:
            self.faults.extend(population.faults(self.search, self.stop, self.objectives, self.space, self.fixed))
        if self.search.sampler != "grid" or self.faults:
            return
        try:
            size = sum(1 for _ in islice(self.space.grid(), MAX_GRID + 1))
        except SpaceError as error:
            self.faults.extend(Fault(("space", *path), message) for path, message in error.faults)
            return
        if size > MAX_GRID:
            message = f"need at most {MAX_GRID} points in a grid, and this space has more"
            self._fault(("search", "sampler"), message)
        elif "trials" not in self._document.get("search", {}):
            self.search = dataclasses.replace(self.search, trials=size)
        elif self.search.trials > size:
            self._fault(("search", "trials"), f"need at most the {size} points of the grid, got {self.search.trials}")

    def _unknown(self, name: str) -> str:
        return f"unknown setting {shown(name)}; {nearest(name, list(self._settings))}"

    def _check_overlaps(self, entries: Sequence[_Entry]) -> None:
        """Nothing is set twice, and no group of settings both as a whole and in part."""
        first: dict[str, _Entry] = {}
        for entry in entries:
            if first.setdefault(entry.name, entry) is not entry:
                self._fault(entry.path, f"is set under {first[entry.name].path[0]!r} too; need it in one place")
        for entry in entries:
            parts = entry.name.split(".")
            for group in (".".join(parts[:i]) for i in range(2, len(parts))):
                if group in first:
                    self._fault(
                        entry.path, f"{group} is set as a whole under {first[group].path[0]!r}; need one of both"
                    )

    def _check_settings(self, entries: Sequence[_Entry]) -> None:
        """Every name is a setting, every value one that it takes, and no required setting is missing."""
        for entry in entries:
            if entry.name in self._settings:
                self._check_values(entry, self._settings[entry.name])
            elif self._kinds.get(entry.name.split(".")[0], TrainConfig):  # not of an unknown family or dataset
                self._fault(entry.path, self._unknown(entry.name))
        heads = {".".join(entry.name.split(".")[:2]) for entry in entries}
        for name, setting in self._settings.items():
            section, *rest = name.split(".")
            if setting.required and len(rest) == 1 and name not in heads:
                self._fault(("data", *rest) if section == "data" else ("fixed", name), "is required and missing")

    def _check_values(self, entry: _Entry, setting: Setting) -> None:
        if isinstance(entry.parameter, Float) and setting.number is int:
            self._fault((*entry.path, "kind"), "need int or choice for a setting of whole numbers, got 'float'")
        elif isinstance(entry.parameter, Float | Int) and setting.number is None:
            message = f"need choice for a setting that is no number, got {entry.parameter.kind!r}"
            self._fault((*entry.path, "kind"), message)
        else:
            for path, value in entry.values:
                self.faults.extend(fault.under(*entry.path, *path) for fault in setting.check(value))


def misfit(search: Search, space: SearchSpace, objectives: Sequence[Objective]) -> str | None:
    """Why the sampler cannot search this space for these objectives; None: it can."""
    sampler = search.sampler
    if sampler in ("cma-es", "gp") and len(objectives) > 1:
        return f"{sampler} needs one objective, got {len(objectives)}; tpe and nsga-ii take several"
    if sampler in ("cma-es", "gp"):
        conditional = [name for name, parameter in space.items() if parameter.when]
        if conditional:
            return f"{sampler} needs parameters without conditions, got one of {conditional[0]}"
    if sampler == "cma-es":
        choices = [name for name, parameter in space.items() if isinstance(parameter, Choice)]
        if choices:
            return f"cma-es needs numbers, got a choice for {choices[0]}"
        ranges = [p for p in space.values() if not isinstance(p, Choice) and p.low < p.high]
        if len(ranges) < 2:
            return f"cma-es needs at least 2 parameters that vary, got {len(ranges)}"
    if sampler == "grid" and search.enqueue:
        return "grid tries every point; need another sampler where some are to be tried first"
    return None


def dotted(data: Mapping[str, Any]) -> dict[str, Any]:
    """The dataset's settings by their dotted names."""
    return {f"data.{key}": value for key, value in data.items() if key != "name"}
