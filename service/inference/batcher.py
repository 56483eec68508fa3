"""Requests that meet are run together, in batches that form while the batches before them run."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.errors import TooManyRequests, Unavailable
from service.inference.serving_config import Serving

Work = TypeVar("Work")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Work, Answer]):
    work: Work
    size: int
    answer: asyncio.Future[Answer]


_Answered = tuple[list[tuple[_Waiting[Work, Answer], Answer | Exception]], float]


class Batcher(Generic[Work, Answer]):
    """A bounded queue before some threads. It belongs to one event loop.

    Nothing waits while a thread is free, unless `max_wait` says so and another one is busy. What was given up, because
    the client went away or its deadline passed, is not run.

    Args:
        run: answers a batch, an answer or an exception a work; called in threads.
        executor: of those threads.
        workers: so many batches run at once.
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
        self._running = 0  # or about to: they are the threads'
        self._timer: asyncio.TimerHandle | None = None
        self._pace = 0.01
        """Seconds an image, of late."""
        self.enough = serving.max_batch
        """Images from which a larger batch gains nothing: the rest is left to the next thread, or comes sooner."""

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
        while self._queue and self._running < self._most:
            if self._running and self._serving.max_wait and not waited and self._queued < self._largest:
                if self._timer is None:
                    self._timer = loop.call_later(self._serving.max_wait, self._waited_enough, loop)
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            batch = self._take()
            if batch:
                self._running += 1
                task = loop.run_in_executor(self._executor, self._answers, batch)
                task.add_done_callback(lambda done, batch=batch: self._done(loop, batch, done))  # type: ignore[misc]

    @property
    def _most(self) -> int:
        """Batches that may be with the threads: one each, and full ones, which can only grow old here, to follow them.

        A thread that ends finds its next batch there; to ask for it here would take as long as a small model.
        """
        return self._workers * (2 if self._queued >= self._largest else 1)

    @property
    def _largest(self) -> int:
        return min(self._serving.max_batch, self.enough)

    def _waited_enough(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._start(loop, waited=True)

    def _take(self) -> list[_Waiting[Work, Answer]]:
        batch: list[_Waiting[Work, Answer]] = []
        images = 0
        while self._queue and (not batch or images + self._queue[0].size <= self._largest):
            one = self._queue.popleft()
            self._queued -= one.size
            if not one.answer.done():
                batch.append(one)
                images += one.size
        return batch

    def _answers(self, batch: list[_Waiting[Work, Answer]]) -> _Answered[Work, Answer]:
        """In a thread."""
        began = time.perf_counter()
        wanted = [one for one in batch if not one.answer.done()]  # a full batch may have waited for the thread
        answers = self._run([one.work for one in wanted]) if wanted else ()
        return list(zip(wanted, answers, strict=True)), time.perf_counter() - began

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting[Work, Answer]],
        done: asyncio.Future[_Answered[Work, Answer]],
    ) -> None:
        self._running -= 1
        failed = done.exception()
        if failed is not None:
            answered: list[tuple[_Waiting[Work, Answer], Any]] = [(one, failed) for one in batch]
        else:
            answered, seconds = done.result()
            if answered:
                self._pace += 0.1 * (seconds / sum(one.size for one, _ in answered) - self._pace)
        for one, answer in answered:
            if one.answer.done():
                continue
            if isinstance(answer, BaseException):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
        self._start(loop)
