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

    def run(self, batch: Sequence[Any], wanted: Callable[[], bool]) -> list[Any]:
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


def test_works_of_one_kind_are_run_together(play: Callable[..., Model]) -> None:
    """Next is the kind of which somebody has waited longest, and only what is full of one kind leaves beforehand."""

    async def scene(batcher: Batcher[Any, Any], model: Model) -> None:
        kinds = [None, 1000, None, 7, 1000, None, None]
        tasks = [asyncio.create_task(batcher.submit(i, size=1, kind=kind)) for i, kind in enumerate(kinds, 1)]
        await asyncio.sleep(0)
        model.may.set()
        assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5, 6, 7]

    assert play(scene, max_batch=3).batches == [[0], [1, 3, 6], [2, 5], [4], [7]]


def test_no_number_of_later_kinds_holds_up_who_came_first(play: Callable[..., Model]) -> None:
    """What is left of a kind keeps its place before those that came after it."""

    async def scene(batcher: Batcher[Any, Any], model: Model) -> None:
        kinds = [None, None, None, 1, 2, 3]
        tasks = [asyncio.create_task(batcher.submit(i, size=1, kind=kind)) for i, kind in enumerate(kinds, 1)]
        await asyncio.sleep(0)
        model.may.set()
        await asyncio.gather(*tasks)

    assert play(scene, max_batch=2).batches == [[0], [1, 2], [3], [4], [5], [6]]


def test_one_that_waits_for_company_does_not_hold_up_a_full_batch(threads: ThreadPoolExecutor) -> None:
    """Its own batch goes once it has waited long enough, however many full ones come meanwhile."""

    async def scene() -> None:
        model = Model()
        model.may.clear()
        serving = Serving(max_wait=1.0, max_batch=2)
        batcher: Batcher[Any, Any] = Batcher(model.run, executor=threads, workers=2, serving=serving)
        tasks = [asyncio.create_task(batcher.submit("first", size=1))]
        await asyncio.get_running_loop().run_in_executor(None, model.began.acquire)
        tasks.append(asyncio.create_task(batcher.submit("odd", size=1, kind=5)))
        tasks += [asyncio.create_task(batcher.submit(i, size=1)) for i in range(2)]
        await asyncio.get_running_loop().run_in_executor(None, model.began.acquire)
        assert model.batches == [["first"], [0, 1]]
        model.may.set()
        await asyncio.gather(*tasks)
        assert model.batches[2:] == [["odd"]]

    asyncio.run(scene())


def test_what_is_yet_to_be_made_has_its_place(play: Callable[..., Model]) -> None:
    """It counts among those who wait, from the start until it is given up; a full queue does not begin to make it."""

    async def scene(batcher: Batcher[Any, Any], model: Model) -> None:
        made: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        coming = asyncio.create_task(batcher.submit_later(lambda: made, size=3))
        gone = asyncio.create_task(batcher.submit_later(asyncio.Event().wait, size=1))
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests, match="4 images wait already, at most 4 may"):
            await batcher.submit("late", size=1)
        with pytest.raises(TooManyRequests):
            await batcher.submit_later(pytest.fail, size=1)
        gone.cancel()
        await asyncio.sleep(0)
        beside = asyncio.create_task(batcher.submit("beside", size=1))
        made.set_result("made")
        model.may.set()
        assert await asyncio.gather(coming, beside) == ["made", "beside"]

    assert play(scene, max_queue=4, max_batch=1).batches == [[0], ["beside"], ["made"]]


def test_making_a_work_is_within_its_deadline() -> None:
    """What is not made in time is given up, and what it takes is no longer there for running it."""

    async def scene() -> None:
        batcher: Batcher[str, str] = Batcher(lambda *_: [], executor=Kept(), workers=1, serving=Serving(deadline=0.5))
        loop = asyncio.get_running_loop()
        began = loop.time()
        made: asyncio.Future[str] = loop.create_future()
        loop.call_later(0.4, made.set_result, "made")
        never: asyncio.Future[str] = loop.create_future()
        outcomes = await asyncio.gather(
            batcher.submit_later(lambda: never, size=1),
            batcher.submit_later(lambda: made, size=1),
            return_exceptions=True,
        )
        assert [str(one) for one in outcomes] == ["no answer within 0.5 s: the model has too much to do"] * 2
        assert never.cancelled()
        assert loop.time() - began < 0.85  # one that begins anew once the work is made would end at 0.9

    asyncio.run(scene())


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

    def run(works: Sequence[int], wanted: Callable[[], bool]) -> list[int]:
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

    def run(batch: Sequence[Any], wanted: Callable[[], bool]) -> list[Any]:
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


def test_a_batch_is_told_when_nobody_waits_for_it_any_more() -> None:
    """Not while one of those who asked still does."""

    told: list[Callable[[], bool]] = []

    def run(works: Sequence[int], wanted: Callable[[], bool]) -> list[int]:
        told.append(wanted)
        return list(works)

    async def scene() -> None:
        threads = Kept()
        batcher: Batcher[int, int] = Batcher(run, executor=threads, workers=1, serving=Serving())
        first, *others = [asyncio.create_task(batcher.submit(i, size=1)) for i in range(3)]
        await asyncio.sleep(0)
        threads.run()
        await first
        _, call = threads.given[0]
        call()
        for task in others:
            assert told[1]()
            task.cancel()
            await asyncio.sleep(0)
        assert not told[1]()

    asyncio.run(scene())


def test_threads_that_end_under_load_are_no_error() -> None:
    """Their batches are cancelled with them; who asked has gone by then, or goes at the deadline."""

    async def scene() -> None:
        threads, errors = Kept(), list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        batcher: Batcher[int, int] = Batcher(lambda *_: [], executor=threads, workers=1, serving=Serving(deadline=0.01))
        task = asyncio.create_task(batcher.submit(0, size=1))
        await asyncio.sleep(0)
        threads.given[0][0].cancel()
        with pytest.raises(Unavailable):
            await task
        assert errors == []

    asyncio.run(scene())


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
