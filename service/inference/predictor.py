"""The models of the store, answering: which version, loaded or not yet, and its answers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, final

import cv2
import torch
from torch import Tensor

from service.domain import ModelVersion
from service.errors import NotFound, Unavailable
from service.inference.engine import Images
from service.inference.loaded_model import LoadedModel, Question
from service.inference.serving_config import Serving, ServingTable
from service.inference.uploads import Upload, are_small, fitted
from service.ports import Store
from trainables.saved_model import SavedModel

FRESH = 0.2
"""Seconds for which the champion is who it was when the store was last asked."""
SWITCH = 20e-6
"""Seconds after which a thread that holds the interpreter makes way for one that waits for it.

A batch needs the interpreter for moments, between pictures and engine. With Python's 5 ms the event loop keeps it
waiting that long, and a processor idle.
"""

logger = logging.getLogger(__name__)
Key = tuple[str, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prediction:
    """A request's answer, and the model version that gave it."""

    version: ModelVersion
    answer: Any


@final
class Predictors:
    """Every model of the store. A newer champion answers within `FRESH` seconds, by eager PyTorch until it is faster.

    Belongs to one event loop; `close` ends its threads.

    Args:
        store: knows the versions of each model.
        serving: how each model is served.
        kept: so many loaded models stay in memory besides the pinned ones, those asked last.
        fresh: see `FRESH`.
        workers: threads that run models; none: one a processor.
        now: seconds, of a clock that never goes back.
    """

    def __init__(
        self,
        store: Store,
        *,
        serving: ServingTable | None = None,
        kept: int = 4,
        fresh: float = FRESH,
        workers: int | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self.serving = serving or ServingTable({}, Serving())
        self._kept, self._fresh, self._now = kept, fresh, now
        self._workers = workers or len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(self._workers, "inference")
        self._decoding = ThreadPoolExecutor(2, "decoding")  # bounds what huge images take of the memory
        self._waiting = ThreadPoolExecutor(4, "loading")
        self._hurrying = ThreadPoolExecutor(1, "engines")
        self._loaded: OrderedDict[Key, asyncio.Future[LoadedModel]] = OrderedDict()
        self._champions: dict[str, tuple[ModelVersion, float]] = {}
        self._asking: dict[str, asyncio.Future[ModelVersion]] = {}

    def close(self) -> None:
        """Ends the threads, after what they do now."""
        for threads in (self._threads, self._decoding, self._waiting, self._hurrying):
            threads.shutdown(wait=False, cancel_futures=True)

    async def preload(self) -> None:
        """Loads the pinned models; one that cannot be is tried again when it is asked."""
        for name in self.serving.pinned:
            try:
                await self.model(name)
            except (NotFound, Unavailable) as error:
                logger.warning("the pinned model %s is not loaded yet: %s", name, error)

    def forget(self, name: str) -> None:
        """The store has another champion of this name."""
        self._champions.pop(name, None)
        self._asking.pop(name, None)

    def loaded(self, name: str | None = None) -> list[LoadedModel]:
        """The models in memory, of one name or all."""
        done = [one.result() for one in list(self._loaded.values()) if one.done() and not one.cancelled()]
        return [model for model in done if name in (None, model.version.name)]

    async def version(self, name: str, version: int | None = None, sweep: str | None = None) -> ModelVersion:
        """The champion of a name, or the version with that number, or the newest that a sweep made.

        Raises:
            NotFound: there is none.
            Unavailable: the store does not answer, and did not before.
        """
        if version is None and sweep is None:
            return await self._champion(name)
        for one in await self.known_versions(name):
            if version in (None, one.version) and sweep in (None, one.sweep_id):
                return one
        await self._champion(name)  # perhaps there is no such model at all
        which = " ".join(f"{what} {value}" for what, value in (("version", version), ("of sweep", sweep)) if value)
        raise NotFound(f"there is no {which} of model {name!r}")

    async def known_versions(self, name: str) -> list[ModelVersion]:
        """All versions of a name, newest first."""
        return await self._in_thread(self._store.model_versions, name)

    async def model(self, name: str, version: int | None = None, sweep: str | None = None) -> LoadedModel:
        """That version, in memory and ready to answer. Errors as of `version`."""
        found = await self.version(name, version, sweep)
        key = (found.name, found.version)
        coming = self._loaded.get(key)
        if coming is None:
            coming = self._loaded[key] = asyncio.ensure_future(self._load(found))
            coming.add_done_callback(lambda done: self._keep(key, done))
        self._loaded.move_to_end(key)
        return await asyncio.shield(coming)

    async def predict(
        self,
        model: LoadedModel,
        images: Images | Sequence[Upload],
        finish: Callable[[SavedModel, Tensor], Any],
        *,
        steps: int | None = None,
        evolution: bool = False,
        max_pixels: int,
    ) -> Prediction:
        """What `finish` makes of the model's outputs, in a thread: `[n, ...]`, of an evolution `[n, steps, ...]`.

        Raises:
            BadImage, TooLarge: an upload cannot be used.
            BadRequest: the model takes no steps, or not so many, or cannot be read out after each.
            TooManyRequests, Unavailable: the model has too much to do.
        """
        count = len(images)
        model.check_steps(steps, evolution=evolution, images=count)
        if not hasattr(images, "dtype") and not are_small(images):
            images = await asyncio.get_running_loop().run_in_executor(
                self._decoding,
                lambda uploads: fitted(uploads, model.saved.preprocessing, max_pixels=max_pixels),
                images,
            )
        answer = await model.batcher.submit(Question(images, finish, steps, evolution, max_pixels), size=count)
        return Prediction(model.version, answer)

    async def _champion(self, name: str) -> ModelVersion:
        known, until = self._champions.get(name, (None, 0.0))
        if known is not None and self._now() < until:
            return known
        # All who ask meanwhile wait for one answer of the store: under load they are many, and come at once.
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.ensure_future(self._ask_champion(name, known))
        return await asyncio.shield(asking)

    async def _ask_champion(self, name: str, known: ModelVersion | None) -> ModelVersion:
        mine = asyncio.current_task()
        try:
            found = await self._in_thread(self._store.champion, name)
        except Unavailable:
            if known is None:
                raise
            logger.warning("the store does not answer; version %d of %s still does", known.version, name)
            found = known
        finally:
            still_asked = self._asking.get(name) is mine
            if still_asked:
                del self._asking[name]
        if still_asked:  # else the champion has changed since
            self._champions[name] = found, self._now() + self._fresh
        return found

    async def _load(self, version: ModelVersion) -> LoadedModel:
        serving = self.serving[version.name]
        model = await self._in_thread(
            lambda: LoadedModel(version, executor=self._threads, workers=self._workers, serving=serving)
        )
        if not model.ready:
            self._hurrying.submit(_hurry, model, serving)
        return model

    def _keep(self, key: Key, done: asyncio.Future[LoadedModel]) -> None:
        """What could not be loaded is forgotten; what was asked longest ago makes room."""
        if done.cancelled() or done.exception() is not None:
            self._loaded.pop(key, None)
            return
        pinned = set(self.serving.pinned)
        old = [one for one in self._loaded if one[0] not in pinned and one != key and self._loaded[one].done()]
        for one in old[: max(0, len(old) + (key[0] not in pinned) - self._kept)]:
            del self._loaded[one]

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._waiting, work, *arguments)


def settle_libraries() -> None:
    """What a process that runs models sets once."""
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # a stranger's broken image is answered, not logged
    torch.set_num_threads(1)  # models are run by a thread a processor; more would be in each other's way
    sys.setswitchinterval(SWITCH)
    _set_libraries_aside()


def _set_libraries_aside() -> None:
    """Has the garbage collector pass over all that is there now.

    Libraries are hundreds of thousands of objects, and looking through them stops every request for a quarter of a
    second, every few thousand requests.
    """
    gc.collect()
    gc.freeze()


@cache
def _set_engines_aside() -> None:
    """The first engine has brought its libraries along; models come and go, and stay the collector's."""
    _set_libraries_aside()


def _hurry(model: LoadedModel, serving: Serving) -> None:
    try:
        model.hurry(serving)
    except Exception:  # it goes on with eager PyTorch
        logger.exception("no engine for %s", model.version.name)
    _set_engines_aside()
