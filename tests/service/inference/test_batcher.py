"""Batches form by themselves, the queue has an end, and nobody waits for what was given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from service.errors import TooManyRequests, Unavailable
from service.inference.batcher import Batcher
from service.inference.serving_config import Serving


class Model:
    """Answers each work with itself once it may; keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.may = threading.Event()
        self.may.set()
        self.began = threading.Semaphore(0)

    def run(self, batch: Sequence[Any]) -> list[Any]:
        self.batches.append(list(batch))
        self.began.release()
        assert self.may.wait(10)
        return list(batch)


@pytest.fixture(name="threads")
def _threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture(name="play")
def _play(threads: ThreadPoolExecutor) -> Callable[..., Model]:
    """Runs a scene with a batcher around a model that has begun work 0 and may not end it."""

    def play(scene: Callable[[Batcher[Any, Any], Model], Coroutine[Any, Any, None]], **serving: Any) -> Model:
        model = Model()
        model.may.clear()

        async def run() -> None:
            batcher = Batcher(model.run, executor=threads, workers=1, serving=Serving(**serving))
            first = asyncio.create_task(batcher.submit(0, size=1))
            await asyncio.get_running_loop().run_in_executor(None, model.began.acquire)
            try:
                await scene(batcher, model)
            finally:
                model.may.set()
                assert await first == 0

        asyncio.run(run())
        return model

    return play


def test_what_comes_while_a_batch_runs_is_the_next_batch(play: Callable[..., Model]) -> None:
    """The first runs alone at once; the others wait for it together, up to the largest batch."""

    async def scene(batcher: Batcher[Any, Any], model: Model) -> None:
        tasks = [asyncio.create_task(batcher.submit(i, size=1)) for i in range(1, 6)]
        await asyncio.sleep(0)
        model.may.set()
        assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5]

    assert play(scene, max_batch=3).batches == [[0], [1, 2, 3], [4, 5]]


class Kept(Executor):
    """Keeps what it is given until it is told to run it."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Later."""
        future: Future[Any] = Future()
        self.given.append((future, lambda: call(*arguments, **named)))
        return future

    def run(self) -> None:
        """What was given first."""
        future, call = self.given.pop(0)
        future.set_result(call())


def test_only_full_batches_wait_for_a_thread() -> None:
    """A thread that ends finds the next one there; a batch that may still grow stays. What was given up is not run."""
    batches: list[list[int]] = []

    def run(works: Sequence[int]) -> list[int]:
        batches.append(list(works))
        return list(works)

    async def scene() -> None:
        threads = Kept()
        batcher: Batcher[int, int] = Batcher(run, executor=threads, workers=1, serving=Serving())
        batcher.enough = 2
        tasks = [asyncio.create_task(batcher.submit(i, size=1)) for i in range(6)]
        await asyncio.sleep(0)
        assert len(threads.given) == 2  # [0] and [1, 2], which is full; [3, 4] would make two that wait
        tasks[1].cancel()
        threads.run()
        threads.run()
        assert await asyncio.gather(tasks[0], tasks[2]) == [0, 2]
        assert len(threads.given) == 1  # [3, 4]; 5 may still grow
        threads.run()
        await asyncio.gather(*tasks[3:5])
        threads.run()
        assert await tasks[5] == 5

    asyncio.run(scene())
    assert batches == [[0], [2], [3, 4], [5]]


def test_a_full_queue_refuses_and_says_when_to_come_again(play: Callable[..., Model]) -> None:
    """Counted in images; a request that is larger than the queue is taken by an empty one."""

    async def scene(batcher: Batcher[Any, Any], model: Model) -> None:
        large = asyncio.create_task(batcher.submit("large", size=9))
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests, match="9 images wait already, at most 4 may") as refused:
            await batcher.submit("late", size=1)
        assert refused.value.seconds >= 1
        model.may.set()
        assert await large == "large"

    play(scene, max_queue=4)


def test_who_went_away_is_not_answered(play: Callable[..., Model]) -> None:
    """A cancelled request is never run; its neighbours are."""

    async def scene(batcher: Batcher[Any, Any], model: Model) -> None:
        gone, stays = (asyncio.create_task(batcher.submit(name, size=1)) for name in ("gone", "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        model.may.set()
        assert await stays == "stays"

    assert play(scene).batches == [[0], ["stays"]]


def test_a_deadline_ends_the_waiting(play: Callable[..., Model]) -> None:
    """The answer is that there is none, and the work is not run later."""

    async def scene(batcher: Batcher[Any, Any], model: Model) -> None:
        with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
            await asyncio.gather(batcher.submit("late", size=1))
        model.may.set()

    with pytest.raises(Unavailable):  # the first one is late too
        play(scene, deadline=0.05)


def test_an_error_is_its_own_requests(threads: ThreadPoolExecutor) -> None:
    """One work's exception is raised to who asked for it; a failing batch is raised to all in it."""

    def run(batch: Sequence[Any]) -> list[Any]:
        if "bomb" in batch:
            raise ZeroDivisionError
        return [ValueError("odd") if work % 2 else work for work in batch]

    async def ask() -> list[Any]:
        batcher: Batcher[Any, Any] = Batcher(run, executor=threads, workers=1, serving=Serving())
        asked = [batcher.submit(work, size=1) for work in ("bomb", 1, 2)]
        return await asyncio.gather(*asked, return_exceptions=True)

    bomb, odd, even = asyncio.run(ask())
    assert isinstance(bomb, ZeroDivisionError)
    assert isinstance(odd, ValueError)
    assert even == 2


def test_a_batch_waits_to_be_filled_only_while_another_runs(threads: ThreadPoolExecutor) -> None:
    """With a second thread free, a request joins the next one if `max_wait` says so."""
    model = Model()
    model.may.clear()

    async def run() -> None:
        batcher = Batcher(model.run, executor=threads, workers=2, serving=Serving(max_wait=0.05))
        first = asyncio.create_task(batcher.submit(0, size=1))
        await asyncio.get_running_loop().run_in_executor(None, model.began.acquire)
        others = [asyncio.create_task(batcher.submit(i, size=1)) for i in (1, 2)]
        await asyncio.get_running_loop().run_in_executor(None, model.began.acquire)
        model.may.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert model.batches == [[0], [1, 2]]
