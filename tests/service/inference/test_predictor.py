"""The newest version of a model answers, from a small cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain import NotFound, Unavailable
from service.inference.predictor import Predictors
from trainables.saved_model import load_model

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_the_champion_answers_as_its_saved_model_does(service: Any) -> None:
    """The answer carries the version that gave it; colour and size are fitted as in training."""
    service.model(seed=1)
    champion = service.model(seed=2)
    prediction = Predictors(service.store).predict("digits", [IMAGE])
    assert prediction.version == champion
    assert prediction.answers == load_model(Path(champion.path)).predict([IMAGE])


def test_a_loaded_version_needs_no_files_any_more(service: Any) -> None:
    """The second request is answered from memory."""
    version = service.model()
    predictors = Predictors(service.store)
    first = predictors.predict("digits", [IMAGE])
    (Path(version.path) / "model.safetensors").unlink()
    assert predictors.predict("digits", [IMAGE]) == first


def test_only_so_many_models_stay_in_memory(service: Any) -> None:
    """The model that was asked longest ago is the one that must be loaded again."""
    first = service.model("a")
    service.model("b", seed=1)
    predictors = Predictors(service.store, kept=1)
    for name in ("a", "b"):
        predictors.predict(name, [IMAGE])
    (Path(first.path) / "model.json").unlink()
    with pytest.raises(Unavailable, match="version 1 of model 'a' cannot be loaded"):
        predictors.predict("a", [IMAGE])
    assert predictors.predict("b", [IMAGE]).answers


def test_a_model_without_versions_is_not_found(service: Any) -> None:
    """The message says when there will be one."""
    with pytest.raises(NotFound, match="there is no model named 'nobody' yet"):
        Predictors(service.store).predict("nobody", [IMAGE])
