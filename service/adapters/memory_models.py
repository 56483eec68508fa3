"""Model versions and promotions in memory. See `memory_store`, which calls under its lock."""

from __future__ import annotations

from typing import Any

from service.champions import no_model, standing, without_others
from service.domain import ModelVersion, Promotion
from service.errors import Conflict, NotFound


class MemoryModels:
    """The versions of every model, and which of them is its champion."""

    def __init__(self) -> None:
        self._versions: dict[str, list[ModelVersion]] = {}
        self._promotions: dict[str, list[Promotion]] = {}
        self._numbers: dict[str, int] = {}

    def versions(self, name: str, *, before: int | None = None) -> list[ModelVersion]:
        """Oldest first; none where there is no such model."""
        return [one for one in self._versions.get(name, []) if before is None or one.version < before]

    def promotions(self, name: str, *, before: int | None = None) -> list[Promotion]:
        """Oldest first; none where there is no such model."""
        return [one for one in self._promotions.get(name, []) if before is None or one.number < before]

    def version(self, name: str, number: int) -> ModelVersion:
        """One of the versions of a model that is there. Raises NotFound."""
        for version in self._versions[name]:
            if version.version == number:
                return version
        raise NotFound(f"there is no version {number} of model {name!r}")

    def champion(self, name: str) -> ModelVersion:
        """The version of the newest promotion. Raises NotFound where there is no such model."""
        if not self._promotions.get(name):
            raise NotFound(no_model(name))
        return self.version(name, self._promotions[name][-1].version)

    def last_champion(self, name: str) -> ModelVersion:
        """The one before this one. Raises NotFound where there is no such model, Conflict where it had no other."""
        champion, versions = self.champion(name), standing(self._promotions[name])
        if len(versions) < 2:
            raise Conflict(f"model {name!r} had no other champion before version {champion.version}")
        return self.version(name, versions[-2])

    def champions(self) -> list[ModelVersion]:
        """Every model's, by name."""
        return [self.champion(name) for name, versions in sorted(self._versions.items()) if versions]

    def serves(self, trial_id: str) -> bool:
        """A version is of this trial."""
        return any(one.trial_id == trial_id for versions in self._versions.values() for one in versions)

    def add(self, name: str, **version: Any) -> ModelVersion:
        """Keeps one more version, under a number that none has had. It is not the champion yet."""
        self._numbers[name] = self._numbers.get(name, 0) + 1
        known = self._versions.setdefault(name, [])
        known.append(ModelVersion(name=name, version=self._numbers[name], **version))
        return known[-1]

    def promote(self, version: ModelVersion, **promotion: Any) -> Promotion:
        """Makes the version its model's champion."""
        known = self._promotions.setdefault(version.name, [])
        number = known[-1].number + 1 if known else 1
        known.append(Promotion(name=version.name, number=number, version=version.version, **promotion))
        return known[-1]

    def forget(self, sweep_id: str) -> list[Promotion]:
        """Removes the versions of a sweep, with their promotions; returns those that others have for it."""
        new = []
        for name, versions in self._versions.items():
            left = [one for one in versions if one.sweep_id != sweep_id]
            if left != versions:
                before, self._versions[name] = self._promotions[name], left
                self._promotions[name] = without_others(before, left)
                new += [one for one in self._promotions[name] if one.number > before[-1].number]
        return new
