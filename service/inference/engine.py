"""What runs a model: the fastest engine of this machine whose numbers are those of eager PyTorch."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.inference.serving_config import Serving
from trainables.saved_model import SavedModel

Images = npt.NDArray[np.uint8]
"""`[n, c, h, w]`, as `Preprocessing.fit` gives them."""
Outputs = npt.NDArray[np.float32]
"""`[n, ...]`, what a model says of each image."""

SIZES = (1, 2, 5, 3)
"""Batches that an engine is compared on, not in order: a graph that was traced for one size shows here."""

TIMED, RUNS, PATIENCE = 8, 10, 2.0
"""Images of a run, and runs, by which engines are compared; no further run begins after so many seconds."""

HANDING, SAVED = 0.0003, 0.05
"""Seconds that it takes to give a batch to a thread and to take its answers back; a larger batch is not worth waiting
for where all that a batch costs once, these seconds and the engine's own, is less than such a share of it."""

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """Runs one model. Threads may use it at once."""

    name: str

    def run(self, images: Images) -> Outputs:
        """The model's outputs, float32, in memory of the caller's."""


class CannotServe(Exception):  # noqa: N818 - it says what is the matter
    """An engine is not there, cannot take the model, or gives other numbers."""


@final
class Pipeline(nn.Module):
    """A model from uint8 images on, so that an engine takes over the normalisation too."""

    scales: Tensor
    shifts: Tensor

    def __init__(self, model: SavedModel) -> None:
        super().__init__()
        self.module, self._preprocessing = model.module, model.preprocessing
        self.input_shape = model.preprocessing.input_shape
        # With the model on its device: while a CUDA graph is recorded, nothing may come from the host.
        for name, numbers in zip(("scales", "shifts"), self._preprocessing.scales_and_shifts(), strict=True):
            self.register_buffer(name, numbers)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs of uint8 images `[n, c, h, w]`."""
        inputs = self._preprocessing.normalize(images, (self.scales, self.shifts))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        outputs: Tensor = self.module(inputs)
        return outputs.float()


@final
class Eager:
    """PyTorch as in training; the only engine that takes other numbers of steps than was trained, and tells of each."""

    name = "eager"

    def __init__(self, model: SavedModel) -> None:
        self._model = model
        self._device = next(model.module.parameters()).device
        self.takes_steps = "steps" in inspect.signature(model.module.forward).parameters
        self.evolves = callable(getattr(model.module, "evolution", None))
        """The model can be read out after each of its steps."""

    def run(self, images: Images, *, steps: int | None = None) -> Outputs:
        """The model's outputs, of a recurrent one after so many steps."""
        with torch.inference_mode():
            inputs = self._model.preprocessing.normalize(torch.from_numpy(images).to(self._device))
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            outputs = self._model.module(inputs) if steps is None else self._model.module(inputs, steps=steps)
            found: Outputs = outputs.float().cpu().numpy()
            return found

    def evolution(self, images: Images, *, steps: int | None = None) -> Outputs:
        """A recurrent model's outputs after step 1, 2, ... of one run, `[n, steps, ...]`; the last are `run`'s."""
        with torch.inference_mode():
            inputs = self._model.preprocessing.normalize(torch.from_numpy(images).to(self._device))
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            module = cast("Evolving", self._model.module)
            found = [outputs.float().cpu().numpy() for outputs in module.evolution(inputs, steps)]
            return np.stack(found, axis=1)


class Evolving(Protocol):
    """A module that can be read out after each of its steps."""

    steps: int
    """So many, if a call does not say."""

    def evolution(self, images: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """The outputs after step 1, 2, ..."""


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that a model is run by, and what was found of others."""

    engine: Engine
    notes: tuple[str, ...]
    """Why an engine cannot run it, or how long it took."""
    enough: int | None = None
    """Images from which a larger batch gains next to nothing; none: not measured."""


def choose(model: SavedModel, serving: Serving, eager: Eager) -> Choice:
    """The fastest engine for the model's device, `eager` among them, that takes the model and agrees with `eager`.

    It is measured here and now, and warm: it has run batches of several sizes. One that is asked for by name is taken
    however fast it is.
    """
    notes: list[str] = []
    engines: list[Engine] = []
    for name in _candidates(model, serving):
        try:
            engine = _MAKERS[name](model)
            check(engine, eager, model, serving.tolerance)
        except CannotServe as error:
            notes.append(f"{name}: {error}")
            logger.warning("a model of family %s is not run by %s: %s", model.family, name, error)
        else:
            engines.append(engine)
    seconds = {one: _seconds(one, model, TIMED) for one in (*engines, cast("Engine", eager))}
    notes += [f"{one.name}: {took * 1000:.2f} ms for {TIMED} images" for one, took in seconds.items()]
    fastest = min(seconds, key=lambda one: seconds[one])
    chosen = engines[0] if engines and serving.engine != "auto" else fastest
    enough = enough_at_once(_seconds(chosen, model, 1), seconds[chosen])
    if enough < serving.max_batch:
        notes.append(f"{chosen.name}: more than {enough} images at a time gain next to nothing")
    return Choice(chosen, tuple(notes), enough)


def enough_at_once(one: float, several: float) -> int:
    """Images from which a larger batch gains next to nothing: those at its end would only wait for those before them.

    A graphics card takes as long for one image as for many, and hardly ever has enough; a large model on a processor
    has with one.

    Args:
        one: seconds of an image alone.
        several: of `TIMED` images together.
    """
    each = max((several - one) / (TIMED - 1), 1e-7)
    once = max(one - each, 0.0) + HANDING
    return max(1, math.ceil(once / (SAVED * each)))


def check(engine: Engine, eager: Eager, model: SavedModel, tolerance: float) -> None:
    """Compares an engine with eager PyTorch on random images.

    Raises:
        CannotServe: it fails, or differs by more than the tolerance allows.
    """
    generator = np.random.default_rng(0)
    tolerance = max(tolerance, getattr(engine, "tolerance", 0.0))
    for size in SIZES:
        images = generator.integers(0, 256, (size, *model.preprocessing.input_shape), dtype=np.uint8)
        expected = eager.run(images)
        try:
            found = engine.run(images)
        except Exception as error:  # whatever an engine raises is a reason to take another one
            raise CannotServe(f"it fails on {size} images: {_line(error)}") from error
        if found.shape != expected.shape:
            raise CannotServe(f"need outputs {list(expected.shape)} of {size} images, got {list(found.shape)}")
        scale = max(1.0, float(np.abs(expected).max()))
        difference = float(np.abs(found - expected).max()) / scale
        if not difference <= tolerance:  # also a NaN
            raise CannotServe(f"its outputs differ by {difference:.1e}, more than {tolerance:.1e}")


def _seconds(engine: Engine, model: SavedModel, images_at_once: int) -> float:
    """Of the fastest of several runs."""
    images = np.zeros((images_at_once, *model.preprocessing.input_shape), np.uint8)
    seconds: list[float] = []
    while len(seconds) < RUNS and sum(seconds) < PATIENCE:
        began = time.perf_counter()
        engine.run(images)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _candidates(model: SavedModel, serving: Serving) -> tuple[str, ...]:
    if serving.engine == "eager":
        return ()
    if serving.engine != "auto":
        return (serving.engine,)
    return ("cuda",) if next(model.module.parameters()).device.type == "cuda" else ("openvino", "onnxruntime")


def _openvino(model: SavedModel) -> Engine:
    from service.inference.openvino_engine import OpenVino

    return OpenVino(Pipeline(model))


def _onnxruntime(model: SavedModel) -> Engine:
    from service.inference.onnx_engine import OnnxRuntime

    return OnnxRuntime(Pipeline(model))


def _cuda(model: SavedModel) -> Engine:
    from service.inference.cuda_engine import CudaGraphs

    return CudaGraphs(Pipeline(model))


_MAKERS: Mapping[str, Callable[[SavedModel], Engine]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "cuda": _cuda,
}


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
