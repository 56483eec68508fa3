"""A model version in memory: its engine, and the batches that it answers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor

from service.domain import ModelVersion
from service.errors import BadRequest, Unavailable
from service.inference.answers import tensors
from service.inference.batcher import Batcher
from service.inference.engine import Choice, Eager, Evolving, Images, Outputs, choose
from service.inference.serving_config import Serving
from service.inference.tensors import datatype
from service.inference.uploads import Upload, fitted
from trainables.saved_model import SavedModel, load_model

MAX_STEPS = 1000
"""Of a recurrent model, in one request."""
MAX_IMAGE_STEPS = 2**14
"""Images times steps of one request, where it asks for more steps than were trained: 16 images of 1,000 steps, say."""
MAX_EVOLUTION = 2**24
"""Numbers that the outputs of one request's evolution may have: 64 MiB, 372 masks of 150 x 150 pixels, say."""

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class Question:
    """One request's images, and what is to be made of the model's outputs."""

    model: LoadedModel
    images: Images | Sequence[Upload]
    finish: Callable[[SavedModel, Tensor], Any]
    steps: int | None
    evolution: bool
    """`finish` is given the outputs after each step, `[n, steps, ...]`."""
    max_pixels: int
    """Of the uploads together."""

    @property
    def kind(self) -> Hashable:
        """Those of the same kind are run together; an evolution, which takes the memory of many answers, alone."""
        return object() if self.evolution else self.steps

    def fitted(self) -> Images:
        """The images as the model takes them. Errors as of `uploads.fitted`."""
        if isinstance(self.images, np.ndarray):
            return self.images
        return fitted(self.images, self.model.saved.preprocessing, max_pixels=self.max_pixels)

    def decoded(self) -> Question:
        """The same, with images that take no more time."""
        return replace(self, images=self.fitted())


@final
@dataclass(slots=True)
class LoadedModel:
    """A model that answers: by eager PyTorch from the start, and by a faster engine once `hurry` has found one."""

    version: ModelVersion
    saved: SavedModel
    eager: Eager
    choice: Choice
    ready: bool
    """The engine is the one that it will stay with."""
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    """What it gives, by name: datatype of the Open Inference Protocol, and shape of an image's."""
    batcher: Batcher[Question, Any] = field(init=False)

    def __init__(self, version: ModelVersion, *, executor: Executor, workers: int, serving: Serving) -> None:
        """Loads the files.

        Raises:
            Unavailable: they cannot be read, or what they hold does not run.
        """
        self.version = version
        try:
            device = torch.device("cuda") if torch.cuda.is_available() else None
            self.saved = load_model(Path(version.path), device=device)
            self.eager = Eager(self.saved)
            # The first call is slow: libraries choose and compile what they will run.
            outputs = torch.from_numpy(self.eager.run(np.zeros((1, *self.saved.preprocessing.input_shape), np.uint8)))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            message = f"version {version.version} of model {version.name!r} cannot be loaded: {error}"
            raise Unavailable(message) from error
        self.choice, self.ready = Choice(self.eager, ()), serving.engine == "eager"
        self.batcher = Batcher(_answer, executor=executor, workers=workers, serving=serving)
        self.tensors = {
            name: (datatype(tensor.numpy()), tuple(tensor.shape[1:]))
            for name, tensor in tensors(self.saved.task, outputs, evolution=False).items()
        }

    def hurry(self, serving: Serving) -> None:
        """Takes the fastest engine that gives the same numbers; meanwhile the model answers as before."""
        self.choice = choose(self.saved, serving, self.eager)
        self.batcher.enough = self.choice.enough or serving.max_batch
        self.ready = True
        logger.info(
            "version %d of model %s is run by %s", self.version.version, self.version.name, self.choice.engine.name
        )

    def check_steps(self, steps: int | None, *, evolution: bool, images: int) -> None:
        """Raises BadRequest where the model cannot be run for so many steps, or not be read out after each."""
        if steps is not None and not self.eager.takes_steps:
            raise BadRequest(f"steps: need a recurrent model, {self.version.name!r} is a {self.saved.family}")
        if steps is not None and not 1 <= steps <= MAX_STEPS:
            raise BadRequest(f"steps: need a whole number from 1 to {MAX_STEPS}, got {steps}")
        if evolution and not self.eager.evolves:
            raise BadRequest(f"evolution: need a recurrent model, {self.version.name!r} is a {self.saved.family}")
        if steps is None and not evolution:
            return
        trained = cast("Evolving", self.saved.module).steps
        count = steps or trained
        if evolution and images * count > (most := MAX_EVOLUTION // math.prod(self.tensors["outputs"][1])):
            raise BadRequest(
                f"evolution: need at most {most} images times steps of {self.version.name!r}, got {images} x {count}"
            )
        if count > trained and images * count > MAX_IMAGE_STEPS:
            raise BadRequest(
                f"steps: need at most {MAX_IMAGE_STEPS} images times steps beyond the {trained} of training, "
                f"got {images} x {count}"
            )

    def answer(self, questions: Sequence[Question], wanted: Callable[[], bool]) -> list[Any]:
        """An answer or an exception a question; all are of one kind. Runs in a thread, while answers are `wanted`."""
        answers: list[Any] = [None] * len(questions)
        group: list[tuple[int, Images]] = []
        for i, question in enumerate(questions):
            try:
                group.append((i, question.fitted()))
            except Exception as error:  # noqa: BLE001 - it is this question's own, and not its neighbours'
                answers[i] = error
        if not group:
            return answers
        try:
            outputs = self._run(np.concatenate([images for _, images in group]), questions[0], wanted)
        except Exception as error:  # noqa: BLE001 - each of them is told
            for i, _ in group:
                answers[i] = error
            return answers
        start = 0
        for i, images in group:
            part = torch.from_numpy(outputs[start : start + len(images)])
            start += len(images)
            answers[i] = self._finished(questions[i], part)
        return answers

    def _run(self, images: Images, question: Question, wanted: Callable[[], bool]) -> Outputs:
        """In pieces where one question has more images than a batch; between them it may turn out to be given up."""
        largest = self.batcher.largest
        parts: list[Outputs] = []
        for start in range(0, len(images), largest):
            if parts and not wanted():
                raise Unavailable("nobody waits for the answer any more")
            parts.append(self._outputs(images[start : start + largest], question))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _outputs(self, images: Images, question: Question) -> Outputs:
        if question.evolution:
            return self.eager.evolution(images, steps=question.steps)
        if question.steps is None:
            return self.choice.engine.run(images)
        return self.eager.run(images, steps=question.steps)

    def _finished(self, question: Question, outputs: Tensor) -> Any:
        if not np.isfinite(outputs.numpy()).all():
            return Unavailable(
                f"version {self.version.version} of {self.version.name} gave numbers that are not finite"
            )
        try:
            return question.finish(self.saved, outputs)
        except Exception as error:  # noqa: BLE001
            return error


def _answer(questions: Sequence[Question], wanted: Callable[[], bool]) -> list[Any]:
    """By the model that they are for.

    A batcher that knew it itself would make a cycle, which only the garbage collector frees; and that one passes over
    the models that were there when libraries were set aside.
    """
    return questions[0].model.answer(questions, wanted)
