"""Answers about images by the newest version of a model, straight from its saved folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from service.domain import ModelVersion, NotFound, Unavailable
from service.inference.images import Pixels
from service.ports import Store
from trainables.saved_model import SavedModel, load_model


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer an image, in their order, and the model version that gave them all."""

    version: ModelVersion
    answers: list[dict[str, Any]]


@final
class Predictors:
    """Every model of the store. The store is asked for the champion each time, so a newer one answers at once.

    Args:
        store: knows the versions of each model.
        kept: so many loaded models stay in memory, those asked last.
    """

    def __init__(self, store: Store, *, kept: int = 4) -> None:
        self._store = store
        self._load = lru_cache(maxsize=kept)(_load)

    def champion(self, name: str) -> ModelVersion:
        """The newest version of a model. Raises NotFound where there is none yet."""
        versions = self._store.model_versions(name)
        if not versions:
            raise NotFound(
                f"there is no model named {name!r} yet: a sweep of that name registers one as soon as a trial completes"
            )
        return versions[0]

    def predict(self, name: str, images: Sequence[Pixels]) -> Prediction:
        """The champion's answers about decoded images.

        Raises:
            NotFound: there is no model of that name yet.
            Unavailable: its files cannot be read.
        """
        version = self.champion(name)
        return Prediction(version, self._load(version).predict(images))


def _load(version: ModelVersion) -> SavedModel:
    try:
        return load_model(Path(version.path))
    except (OSError, ValueError) as error:
        raise Unavailable(f"version {version.version} of model {version.name!r} cannot be loaded: {error}") from error
