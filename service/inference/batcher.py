"""Requests that meet are run together, in batches that form while the batches before them run."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.errors import TooManyRequests, Unavailable
from service.inference.serving_config import Serving

Work = TypeVar("Work")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Work, Answer]):
    work: Work
    size: int
    came: float
    """By the loop's time."""
    answer: asyncio.Future[Answer]


@dataclass(slots=True)
class _Line(Generic[Work, Answer]):
    """Works of one kind, in the order in which they came."""

    works: deque[_Waiting[Work, Answer]] = field(default_factory=deque)
    images: int = 0


_Answered = tuple[list[tuple[_Waiting[Work, Answer], Answer | Exception]], float]


class Batcher(Generic[Work, Answer]):
    """A bounded queue before some threads. It belongs to one event loop.

    Nothing waits while a thread is free, unless `max_wait` says so and another one is busy. What was given up, because
    the client went away or its deadline passed, is not run.

    Args:
        run: answers a batch, an answer or an exception a work; called in threads. The function that it is given says
            whether anybody still waits for an answer; it may look now and then.
        executor: of those threads.
        workers: so many batches run at once.
        serving: the limits.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Work], Callable[[], bool]], Sequence[Answer | Exception]],
        *,
        executor: Executor,
        workers: int,
        serving: Serving,
    ) -> None:
        self._run, self._executor, self._workers, self._serving = run, executor, workers, serving
        self._lines: dict[Hashable, _Line[Work, Answer]] = {}
        """By kind; none is empty. The next batch is of the kind whose first work came first."""
        self._queued = 0
        self._coming = 0
        """Images that have their place in the queue and are not ready yet."""
        self._running = 0  # or about to: they are the threads'
        self._timer: asyncio.TimerHandle | None = None
        self._pace = 0.01
        """Seconds an image, of late."""
        self.enough = serving.max_batch
        """Images from which a larger batch gains nothing: the rest is left to the next thread, or comes sooner."""

    async def submit(self, work: Work, *, size: int, kind: Hashable = None, until: float | None = None) -> Answer:
        """The answer to a work of so many images, which is run together with works of the same kind only.

        Args:
            work: see `run`.
            size: images.
            kind: of the work.
            until: the loop's time at which it is given up; none: the deadline from now.

        Raises:
            TooManyRequests: too many wait already.
            Unavailable: the deadline passed.
        """
        loop = asyncio.get_running_loop()
        self._check_room(size)
        came = loop.time()
        waiting: _Waiting[Work, Answer] = _Waiting(work, size, came, loop.create_future())
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = _Line()
        line.works.append(waiting)
        line.images += size
        self._queued += size
        self._start(loop)
        alarm = loop.call_at(until or came + self._serving.deadline, self._expire, waiting)
        try:
            return await waiting.answer
        finally:
            alarm.cancel()

    async def submit_later(self, make: Callable[[], Awaitable[Work]], *, size: int, kind: Hashable = None) -> Answer:
        """The same for a work that is yet to be made: its images have their place meanwhile, and its deadline runs."""
        self._check_room(size)
        until = asyncio.get_running_loop().time() + self._serving.deadline
        self._coming += size
        try:
            async with asyncio.timeout_at(until):
                work = await make()
        except TimeoutError:
            raise self._late() from None
        finally:
            self._coming -= size
        return await self.submit(work, size=size, kind=kind, until=until)

    def _check_room(self, size: int) -> None:
        waiting = self._queued + self._coming
        if waiting and waiting + size > self._serving.max_queue:
            seconds = self._pace * waiting / self._workers
            raise TooManyRequests(
                f"{waiting} images wait already, at most {self._serving.max_queue} may", seconds=max(1.0, seconds)
            )

    def _expire(self, waiting: _Waiting[Work, Answer]) -> None:
        if not waiting.answer.done():
            waiting.answer.set_exception(self._late())

    def _late(self) -> Unavailable:
        return Unavailable(f"no answer within {self._serving.deadline:g} s: the model has too much to do")

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._lines:
            kind = self._first()
            patience = self._lines[kind].works[0].came + self._serving.max_wait - loop.time() if self._running else 0.0
            if patience > 0 and not self._full(kind):
                if self._timer is None:
                    self._timer = loop.call_later(patience, self._waited_enough, loop)
                full = [other for other in self._lines if self._full(other)]
                if not full:
                    return
                kind = full[0]
            # The threads may have a batch each, and full ones, which can only grow old here, to follow them. A thread
            # that ends finds its next batch there; to ask for it here would take as long as a small model.
            if self._running >= self._workers * (2 if self._full(kind) else 1):
                return
            batch = self._take(kind)
            if batch:
                self._running += 1
                task = loop.run_in_executor(self._executor, self._answers, batch)
                task.add_done_callback(lambda done, batch=batch: self._done(loop, batch, done))  # type: ignore[misc]

    def _first(self) -> Hashable:
        """The kind of which somebody has waited longest: so no other can hold it up."""
        if len(self._lines) == 1:
            return next(iter(self._lines))
        return min(self._lines, key=lambda kind: self._lines[kind].works[0].came)

    def _full(self, kind: Hashable) -> bool:
        """A batch of that kind cannot grow."""
        return self._lines[kind].images >= self.largest

    @property
    def largest(self) -> int:
        """Images of a batch, unless one work alone has more."""
        return min(self._serving.max_batch, self.enough)

    def _waited_enough(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._start(loop)

    def _take(self, kind: Hashable) -> list[_Waiting[Work, Answer]]:
        line, largest = self._lines[kind], self.largest
        batch: list[_Waiting[Work, Answer]] = []
        images = 0
        while line.works and (not batch or images + line.works[0].size <= largest):
            one = line.works.popleft()
            line.images -= one.size
            self._queued -= one.size
            if not one.answer.done():
                batch.append(one)
                images += one.size
        if not line.works:
            del self._lines[kind]
        return batch

    def _answers(self, batch: list[_Waiting[Work, Answer]]) -> _Answered[Work, Answer]:
        """In a thread."""
        began = time.perf_counter()
        wanted = [one for one in batch if not one.answer.done()]  # a full batch may have waited for the thread
        answers: Sequence[Answer | Exception] = ()
        if wanted:
            answers = self._run([one.work for one in wanted], lambda: not all(one.answer.done() for one in wanted))
        return list(zip(wanted, answers, strict=True)), time.perf_counter() - began

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting[Work, Answer]],
        done: asyncio.Future[_Answered[Work, Answer]],
    ) -> None:
        self._running -= 1
        if done.cancelled():  # the threads have ended
            return
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
