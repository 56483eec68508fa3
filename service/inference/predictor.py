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
"""Seconds between looks at the champions where nobody asks, after which one that could not be loaded is tried again."""
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
        kept: so many loaded models stay in memory, those asked last, besides the pinned names' champions and what is
            made ready to take over from a version that does.
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

    async def follow(self) -> None:
        """Loads the pinned models, and has new champions made ready though nobody asks, until it is cancelled.

        What cannot be loaded, because it is not there yet, say, is tried again.
        """
        said = dict[str, str]()
        while True:
            for name in dict.fromkeys([*self.serving.pinned, *(model.version.name for model in self.loaded())]):
                try:
                    await self._follow(name)
                    said.pop(name, None)
                except Exception as error:  # noqa: BLE001 - whatever it is, the others have their turn
                    if said.get(name) != str(error):
                        logger.warning("the champion of %s is not loaded: %s", name, error)
                    said[name] = str(error)
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
        in_the_name = version is None and sweep is None
        if in_the_name and (last := self._in_memory(self._answering.get(name))) and not self._is_ready(_key(found)):
            self._get_ready(found)
            for key in (_key(last.version), _key(found)):  # the engine that is awaited is made first
                if key in self._loaded:
                    self._loaded.move_to_end(key)
            return last
        coming = self._coming(found)
        self._loaded.move_to_end(_key(found))
        model = await asyncio.shield(coming)
        if in_the_name:
            self._take_over(found)
        return model

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

    async def _follow(self, name: str) -> None:
        champion = await self._champion(name)
        if self._in_memory(self._answering.get(name)) is not None:
            self._get_ready(champion)
        elif name in self.serving.pinned or _key(champion) in self._loaded:  # else it has made room
            await asyncio.shield(self._coming(champion))
            self._take_over(champion)

    def _take_over(self, version: ModelVersion) -> None:
        """From now on it answers in the name, unless it is the champion no longer; the one before makes room first."""
        name, key = version.name, _key(version)
        last = self._answering.get(name)
        if last != key and self._champions.get(name, (None,))[0] == version:
            self._answering[name] = key
            if last is not None and last in self._loaded:
                self._loaded.move_to_end(last, last=False)
            self._make_room()

    def _coming(self, version: ModelVersion) -> asyncio.Future[LoadedModel]:
        key = _key(version)
        coming = self._loaded.get(key)
        if coming is None:
            coming = self._loaded[key] = asyncio.ensure_future(self._load(version))
            coming.add_done_callback(lambda done: self._keep(key, done))
            self._loaded.move_to_end(key, last=False)  # nobody has asked it yet
        return coming

    async def _load(self, version: ModelVersion) -> LoadedModel:
        serving = self.serving[version.name]
        return await _in(
            self._loading,
            lambda: LoadedModel(version, executor=self._threads, workers=self._workers, serving=serving),
        )

    def _get_ready(self, champion: ModelVersion) -> None:
        """Loads it while another version answers."""
        key = _key(champion)
        tried, until = self._tried.get(champion.name, (None, 0.0))
        if key not in self._loaded and (tried != key or self._now() >= until):
            self._tried[champion.name] = key, self._now() + self._again
            self._coming(champion).add_done_callback(_warn)

    def _keep(self, key: Key, done: asyncio.Future[LoadedModel]) -> None:
        """What could not be loaded is forgotten; what could has its engine made."""
        if done.cancelled() or done.exception() is not None:
            self._loaded.pop(key, None)
            return
        self._make_room()
        if self._engines is None or self._engines.done():
            self._engines = asyncio.ensure_future(self._build_engines())
            self._engines.add_done_callback(_seen)

    def _make_room(self) -> None:
        """What was asked longest ago goes."""
        while len(old := [key for key in self._loaded if self._in_memory(key) and not self._stays(key)]) > self._kept:
            del self._loaded[old[0]]  # and what was to take over from it stays no longer

    def _stays(self, key: Key) -> bool:
        """It is the champion, or answers, of a pinned name; or it is to take over from a version in memory."""
        name, version = key
        known, last = self._champions.get(name), self._answering.get(name)
        is_champion = known is not None and known[0].version == version
        if name in self.serving.pinned:  # while nobody knows which is its champion, each version may be
            return is_champion or last == key or (known is None and last is None)
        return is_champion and last != key and last in self._loaded

    async def _build_engines(self) -> None:
        """One after the other, first for the model that was asked last. One that makes room meanwhile needs none."""
        while slow := next((model for model in reversed(self.loaded()) if not model.ready), None):
            await _in(self._hurrying, _hurry, slow, self.serving[slow.version.name])
            self._engine_came.set()
            self._engine_came = asyncio.Event()

    def _in_memory(self, key: Key | None) -> LoadedModel | None:
        coming = self._loaded.get(key) if key is not None else None
        if coming is None or not coming.done() or coming.cancelled() or coming.exception() is not None:
            return None
        return coming.result()

    def _is_ready(self, key: Key) -> bool:
        model = self._in_memory(key)
        return model is not None and model.ready


def _key(version: ModelVersion) -> Key:
    return version.name, version.version


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
