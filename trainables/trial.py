"""One point of a sweep, whole: which model, trained how, on which data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from trainables.budget import Budget
from trainables.config import Config, ConfigError, Fault, nearest, shown
from trainables.data.dataset import DatasetConfig
from trainables.data.datasets import DATASETS
from trainables.families import FAMILIES
from trainables.family import FamilyConfig
from trainables.train_config import TrainConfig

__all__ = ["SECTIONS", "TrainConfig", "TrialConfig", "nest"]

SECTIONS = ("model", "train", "data")


@dataclass(frozen=True, slots=True)
class TrialConfig:
    """The three parts of a trial. Dotted names address their settings: `train.learning_rate`."""

    family: str
    model: FamilyConfig
    train: TrainConfig
    data: DatasetConfig

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A trial from `{family, model, train, data}`; parts left out take their defaults.

        Raises:
            ConfigError: with every fault of all the parts, each with its path.
        """
        if not isinstance(values, Mapping):
            raise ConfigError([Fault((), f"need a mapping of sections, got {shown(values)}")])
        faults = [
            Fault((str(key),), f"unknown section {shown(key)}; {nearest(str(key), ('family', *SECTIONS))}")
            for key in values
            if key not in ("family", *SECTIONS)
        ]
        family, data = values.get("family"), values.get("data", {})
        name = data.get("name") if isinstance(data, Mapping) else None
        kinds: dict[str, type[Config]] = {"train": TrainConfig}
        sections: dict[str, Any] = {"train": values.get("train", {})}
        if isinstance(family, str) and family in FAMILIES:
            kinds["model"], sections["model"] = FAMILIES[family], values.get("model", {})
        else:
            faults.append(Fault(("family",), f"unknown family {shown(family)}; {nearest(str(family), list(FAMILIES))}"))
        if isinstance(name, str) and name in DATASETS:
            kinds["data"] = DATASETS[name]
            sections["data"] = {key: value for key, value in data.items() if key != "name"}
        else:
            message = f"unknown dataset {shown(name)}; {nearest(str(name), list(DATASETS))}"
            faults.append(Fault(("data", "name"), message))
        parts: dict[str, Any] = {}
        for section, kind in kinds.items():
            try:
                parts[section] = kind.from_dict(sections[section])
            except ConfigError as error:
                faults.extend(fault.under(section) for fault in error.faults)
        if faults:
            raise ConfigError(faults)
        trial = cls(family=str(family), **parts)
        task = trial.data.task
        if task.kind not in trial.model.tasks:
            asked = f"{name} asks for {task.kind}, and {family} answers {' and '.join(sorted(trial.model.tasks))}"
            raise ConfigError([Fault(("data", "name"), f"need a dataset that fits the family: {asked}")])
        if trial.train.compile != "off" and not trial.model.trains_whole:
            rule = f"need off for {family}: its training calls parts of the network, and whole passes are translated"
            raise ConfigError([Fault(("train", "compile"), f"{rule}; got {trial.train.compile}")])
        known = [f"validation/{name}" for name in task.METRICS]
        if trial.train.monitor is not None and trial.train.monitor not in known:
            message = f"need one of {', '.join(known)} on {name}, got {shown(trial.train.monitor)}"
            raise ConfigError([Fault(("train", "monitor"), message)])
        try:
            return dataclasses.replace(trial, model=trial.model.fitted(task))
        except ConfigError as error:
            raise ConfigError([fault.under("model") for fault in error.faults]) from error

    @property
    def steps(self) -> int:
        """Steps (by default epochs) of the whole training."""
        return Budget.of(self.train, self.data.train).steps

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back to an equal trial."""
        return {
            "family": self.family,
            "model": self.model.to_dict(),
            "train": self.train.to_dict(),
            "data": self.data.to_dict(),
        }


def nest(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train.pull.end": 1}` as `{"train": {"pull": {"end": 1}}}`.

    Raises:
        ValueError: one name is both a value and a group, as in `{"a": 1, "a.b": 2}`.
    """
    nested: dict[str, Any] = {}
    groups = {"": nested}
    for name, value in dotted.items():
        path = name.split(".")
        for i, part in enumerate(path[:-1]):
            before, group = ".".join(path[:i]), ".".join(path[: i + 1])
            if group in dotted:
                raise ValueError(f"{group!r} is both a value and a group, for {name!r}")
            if group not in groups:
                groups[group] = groups[before][part] = {}
        groups[".".join(path[:-1])][path[-1]] = value
    return nested
