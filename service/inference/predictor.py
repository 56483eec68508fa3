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
from contextlib import suppress
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
from service.inference.uploads import Upload, are_small
from service.ports import Store
from trainables.saved_model import SavedModel

FRESH = 0.2
"""Seconds for which the champion is who it was when the store was last asked."""
PATIENCE = 1.0
"""Seconds for which a request waits for the store where a champion is known that can answer instead."""
AGAIN = 5.0
"""Seconds after which a model that is wanted, and could not be loaded, is tried again though nobody waits for it."""
ENGINE = 10.0
"""Seconds for which a promotion waits for the version's engine; making one ready takes a few."""
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
    """Every model of the store. The first of a name answers by eager PyTorch until it has a faster engine.

    A newer champion is seen within `FRESH` seconds, and answers once its engine is ready: until then the one before it
    does, so that a change costs nobody anything. Belongs to one event loop; `close` ends its threads.

    Args:
        store: knows the versions of each model.
        serving: how each model is served.
        kept: so many loaded models stay in memory besides the pinned names' champions, those asked last.
        fresh, patience, again: see `FRESH`, `PATIENCE` and `AGAIN`.
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
        patience: float = PATIENCE,
        again: float = AGAIN,
        workers: int | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self.serving = serving or ServingTable({}, Serving())
        self._kept, self._fresh, self._patience, self._again, self._now = kept, fresh, patience, again, now
        self._workers = workers or len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(self._workers, "inference")
        self._decoding = ThreadPoolExecutor(2, "decoding")  # bounds what huge images take of the memory
        self._looking_up = ThreadPoolExecutor(4, "store")
        self._loading = ThreadPoolExecutor(4, "loading")
        self._hurrying = ThreadPoolExecutor(1, "engines")
        self._loaded: OrderedDict[Key, asyncio.Future[LoadedModel]] = OrderedDict()  # asked last, last
        self._champions: dict[str, tuple[ModelVersion, float]] = {}
        self._asking: dict[str, tuple[asyncio.Future[ModelVersion], float]] = {}
        self._answering: dict[str, Key] = {}  # in the name of each model: its champion, or the one before
        self._tried: dict[str, tuple[Key, float]] = {}
        self._engines: asyncio.Future[None] | None = None
        self._engine_came = asyncio.Event()

    def close(self) -> None:
        """Ends the threads, after what they do now."""
        for threads in (self._threads, self._decoding, self._looking_up, self._loading, self._hurrying):
            threads.shutdown(wait=False, cancel_futures=True)

    async def preload(self) -> None:
        """Loads the pinned models. What cannot be, because it is not there yet, say, is tried again until it is."""
        missing, said = self.serving.pinned, dict[str, str]()
        while missing:
            for name in list(missing):
                try:
                    await self.model(name)
                    missing.remove(name)
                except Exception as error:  # noqa: BLE001 - whatever it is, the others have their turn
                    if said.get(name) != str(error):
                        logger.warning("the pinned model %s is not loaded yet: %s", name, error)
                    said[name] = str(error)
            if missing:
                await asyncio.sleep(self._again)

    def forget(self, name: str) -> None:
        """The store has another champion of this name, which answers from now on."""
        for known in (self._champions, self._asking, self._answering):
            known.pop(name, None)

    def loaded(self, name: str | None = None) -> list[LoadedModel]:
        """The models in memory, of one name or all."""
        done = [self._in_memory(key) for key in list(self._loaded)]
        return [model for model in done if model is not None and name in (None, model.version.name)]

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
        which = "version" if version is None else f"version {version}"
        of = "" if sweep is None else f" of sweep {sweep!r}"
        raise NotFound(f"there is no {which}{of} of model {name!r}")

    async def known_versions(self, name: str) -> list[ModelVersion]:
        """All versions of a name, newest first."""
        return await _in(self._looking_up, self._store.model_versions, name)

    async def model(self, name: str, version: int | None = None, sweep: str | None = None) -> LoadedModel:
        """That version, in memory and able to answer. Errors as of `version`.

        Where none is asked for it is the champion, or, while that is not ready, the version that answered before.
        """
        found = await self.version(name, version, sweep)
        key = (found.name, found.version)
        if version is None and sweep is None:
            last = self._answering.get(name, key)
            if last != key and not self._is_ready(key) and self._is_ready(last):
                self._get_ready(found)
                found = self._loaded[last].result().version
            else:
                self._answering[name] = key
        return await asyncio.shield(self._coming(found))

    async def ready(self, name: str, version: int, *, within: float = ENGINE) -> None:
        """Has that version in memory, and by the engine that it stays with if there is one in time.

        Errors as of `version`.
        """
        model = await self.model(name, version)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not model.ready:
                    await self._engine_came.wait()

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
        question = Question(model, images, finish, steps, evolution, max_pixels)
        if hasattr(images, "dtype") or are_small(images):
            answer = await model.batcher.submit(question, size=count, kind=question.kind)
        else:
            loop = asyncio.get_running_loop()
            answer = await model.batcher.submit_later(
                lambda: loop.run_in_executor(self._decoding, question.decoded), size=count, kind=question.kind
            )
        return Prediction(model.version, answer)

    async def _champion(self, name: str) -> ModelVersion:
        known, until = self._champions.get(name, (None, 0.0))
        if known is not None and self._now() < until:
            return known
        # All who ask meanwhile wait for one answer of the store: under load they are many, and come at once.
        asking, since = self._asking.get(name, (None, 0.0))
        if asking is None:
            asking, since = asyncio.ensure_future(self._ask_champion(name, known)), self._now()
            asking.add_done_callback(_seen)
            self._asking[name] = asking, since
        if known is not None:
            await asyncio.wait({asking}, timeout=max(0.0, since + self._patience - self._now()))
            if not asking.done():
                return known
        return await asyncio.shield(asking)

    async def _ask_champion(self, name: str, known: ModelVersion | None) -> ModelVersion:
        mine = asyncio.current_task()
        try:
            found = await _in(self._looking_up, self._store.champion, name)
        except Unavailable:
            if known is None:
                raise
            logger.warning("the store does not answer; version %d of %s still does", known.version, name)
            found = known
        except NotFound:
            self._champions.pop(name, None)
            self._answering.pop(name, None)
            raise
        finally:
            still_asked = self._asking.get(name, (None,))[0] is mine
            if still_asked:
                del self._asking[name]
        if still_asked:  # else the champion has changed since
            self._champions[name] = found, self._now() + self._fresh
        return found

    def _coming(self, version: ModelVersion) -> asyncio.Future[LoadedModel]:
        key = (version.name, version.version)
        coming = self._loaded.get(key)
        if coming is None:
            coming = self._loaded[key] = asyncio.ensure_future(self._load(version))
            coming.add_done_callback(lambda done: self._keep(key, done))
        self._loaded.move_to_end(key)
        return coming

    async def _load(self, version: ModelVersion) -> LoadedModel:
        serving = self.serving[version.name]
        return await _in(
            self._loading,
            lambda: LoadedModel(version, executor=self._threads, workers=self._workers, serving=serving),
        )

    def _get_ready(self, champion: ModelVersion) -> None:
        """Loads it while another version answers."""
        key = (champion.name, champion.version)
        tried, until = self._tried.get(champion.name, (None, 0.0))
        if tried != key or self._now() >= until:
            self._tried[champion.name] = key, self._now() + self._again
            self._coming(champion).add_done_callback(_warn)

    def _keep(self, key: Key, done: asyncio.Future[LoadedModel]) -> None:
        """What could not be loaded is forgotten; what was asked longest ago makes room."""
        if done.cancelled() or done.exception() is not None:
            self._loaded.pop(key, None)
            return
        old = [one for one in self._loaded if one != key and self._loaded[one].done() and not self._stays(one)]
        for one in old[: max(0, len(old) + (not self._stays(key)) - self._kept)]:
            del self._loaded[one]
        if self._engines is None or self._engines.done():
            self._engines = asyncio.ensure_future(self._build_engines())
            self._engines.add_done_callback(_seen)

    def _stays(self, key: Key) -> bool:
        """It is a pinned name's champion, or answers for it; each version may be, while nobody knows which is."""
        name, version = key
        if name not in self.serving.pinned:
            return False
        champions = {self._champions[name][0].version} if name in self._champions else set[int]()
        if name in self._answering:
            champions.add(self._answering[name][1])
        return not champions or version in champions

    async def _build_engines(self) -> None:
        """One after the other, first for the model that was asked last. One that makes room meanwhile needs none."""
        while slow := next((model for model in reversed(self.loaded()) if not model.ready), None):
            await _in(self._hurrying, _hurry, slow, self.serving[slow.version.name])
            self._engine_came.set()
            self._engine_came = asyncio.Event()

    def _in_memory(self, key: Key) -> LoadedModel | None:
        coming = self._loaded.get(key)
        if coming is None or not coming.done() or coming.cancelled() or coming.exception() is not None:
            return None
        return coming.result()

    def _is_ready(self, key: Key) -> bool:
        model = self._in_memory(key)
        return model is not None and model.ready


async def _in(threads: ThreadPoolExecutor, work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, work, *arguments)


def _seen(done: asyncio.Future[Any]) -> None:
    """Its error is no surprise, though perhaps nobody waits for it any more."""
    _ = done.cancelled() or done.exception()


def _warn(done: asyncio.Future[LoadedModel]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.warning("a new champion does not answer, and the version before it still does: %s", error)


def settle_libraries() -> None:
    """What a process that runs models imports and sets once."""
    import safetensors.torch  # noqa: F401 - or the threads that load models would import it, all at once

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
        model.ready = True
    _set_engines_aside()
