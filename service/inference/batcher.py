"""Requests that meet are run together: one batch a thread, formed while the batches before it run."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import TooManyRequests, Unavailable
from service.inference.serving_config import Serving

Work = TypeVar("Work")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Work, Answer]):
    work: Work
    size: int
    answer: asyncio.Future[Answer]


class Batcher(Generic[Work, Answer]):
    """A bounded queue before some threads. It belongs to one event loop.

    Nothing waits while a thread is free, unless `max_wait` says so and another one is busy. What was given up, because
    the client went away or its deadline passed, is not run.

    Args:
        run: answers a batch, an answer or an exception a work; called in threads.
        executor: of those threads.
        workers: so many batches may run at once.
        serving: the limits.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Work]], Sequence[Answer | Exception]],
        *,
        executor: Executor,
        workers: int,
        serving: Serving,
    ) -> None:
        self._run, self._executor, self._workers, self._serving = run, executor, workers, serving
        self._queue: deque[_Waiting[Work, Answer]] = deque()
        self._queued = 0
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pace = 0.01
        """Seconds an image, of late."""

    async def submit(self, work: Work, *, size: int) -> Answer:
        """The answer to a work of so many images.

        Raises:
            TooManyRequests: too many wait already.
            Unavailable: the deadline passed.
        """
        loop = asyncio.get_running_loop()
        if self._queued and self._queued + size > self._serving.max_queue:
            seconds = self._pace * self._queued / self._workers
            raise TooManyRequests(
                f"{self._queued} images wait already, at most {self._serving.max_queue} may", seconds=max(1.0, seconds)
            )
        waiting: _Waiting[Work, Answer] = _Waiting(work, size, loop.create_future())
        self._queue.append(waiting)
        self._queued += size
        self._start(loop)
        alarm = loop.call_later(self._serving.deadline, self._expire, waiting)
        try:
            return await waiting.answer
        finally:
            alarm.cancel()

    def _expire(self, waiting: _Waiting[Work, Answer]) -> None:
        if not waiting.answer.done():
            message = f"no answer within {self._serving.deadline:g} s: the model has too much to do"
            waiting.answer.set_exception(Unavailable(message))

    def _start(self, loop: asyncio.AbstractEventLoop, *, waited: bool = False) -> None:
        while self._queue and self._running < self._workers:
            if self._running and self._serving.max_wait and not waited and self._queued < self._serving.max_batch:
                if self._timer is None:
                    self._timer = loop.call_later(self._serving.max_wait, self._waited_enough, loop)
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            batch = self._take()
            if batch:
                self._running += 1
                began = time.perf_counter()
                task = loop.run_in_executor(self._executor, self._run, [one.work for one in batch])
                task.add_done_callback(lambda done, batch=batch, began=began: self._done(loop, batch, began, done))  # type: ignore[misc]

    def _waited_enough(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._start(loop, waited=True)

    def _take(self) -> list[_Waiting[Work, Answer]]:
        batch: list[_Waiting[Work, Answer]] = []
        images = 0
        while self._queue and (not batch or images + self._queue[0].size <= self._serving.max_batch):
            one = self._queue.popleft()
            self._queued -= one.size
            if not one.answer.done():
                batch.append(one)
                images += one.size
        return batch

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[_Waiting[Work, Answer]],
        began: float,
        done: asyncio.Future[Sequence[Answer | Exception]],
    ) -> None:
        self._running -= 1
        images = sum(one.size for one in batch)
        self._pace += 0.1 * ((time.perf_counter() - began) / images - self._pace)
        failed = done.exception()
        answers = [failed] * len(batch) if failed is not None else done.result()
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():
                continue
            if isinstance(answer, BaseException):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
        self._start(loop)
