"""How a model is served: its engine, its batches, its queue."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from trainables.config import Config, setting

EngineName = Literal["auto", "openvino", "onnxruntime", "cuda", "eager"]
EVERY = "*"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Serving(Config):
    """How one model is served."""

    engine: EngineName = setting("auto", help="what runs it; auto: the fastest here that agrees with eager PyTorch")
    tolerance: float = setting(
        1e-5, above=0, help="an engine's outputs may differ from eager float32 by so much, relative to the largest of 1"
    )
    max_batch: int = setting(
        32, at_least=1, at_most=1024, help="images that are run together; fewer, where more gain nothing"
    )
    max_wait: float = setting(
        0.0, at_least=0, at_most=1, help="seconds that a batch waits to be filled while another one runs; never if idle"
    )
    max_queue: int = setting(1024, at_least=1, help="images that may wait; more are refused (429)")
    deadline: float = setting(30.0, above=0, help="seconds after which a request that still waits is given up (503)")
    pinned: bool = setting(False, help="loaded when the service starts, and kept however many others are asked")


@final
@dataclass(frozen=True, slots=True)
class ServingTable:
    """How each model is served, by its name."""

    by_name: Mapping[str, Serving]
    others: Serving

    def __getitem__(self, name: str) -> Serving:
        return self.by_name.get(name, self.others)

    @property
    def pinned(self) -> list[str]:
        """Names of the models that are always loaded."""
        return [name for name, serving in self.by_name.items() if serving.pinned]


def serving_table(text: str) -> ServingTable:
    """The table in a JSON object of settings by model name; those of `*` hold where a model's own say nothing.

    Raises:
        ValueError: it is no such object.
    """
    try:
        return _table(json.loads(text or "{}"))
    except ValueError as error:
        raise ValueError(f"SWEEPSERVE_SERVING: {error}") from error


def _table(document: Any) -> ServingTable:
    if not isinstance(document, dict) or not all(isinstance(values, dict) for values in document.values()):
        raise ValueError('need an object of settings by model name, as {"digits": {"max_batch": 8}}')
    general = document.pop(EVERY, {})
    named = {name: Serving.from_dict({**general, **values}) for name, values in document.items()}
    others = Serving.from_dict(general)
    if others.pinned:
        raise ValueError(f"pinned: name the models that are always loaded, not {EVERY}")
    return ServingTable(named, others)
