"""One version after another: who answers meanwhile, for whom engines are made, and what is freed."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import Unavailable
from service.inference.loaded_model import LoadedModel
from service.inference.predictor import Predictors
from service.inference.serving_config import Serving, ServingTable

EAGER = Serving(engine="eager")


def run(scene: Callable[[Predictors], Coroutine[Any, Any, None]], store: Any, **options: Any) -> None:
    """Plays a scene with predictors of its own, that ask the store each time."""

    async def play() -> None:
        predictors = Predictors(store, **{"fresh": 0.0, "patience": 20.0, **options})
        try:
            await asyncio.wait_for(scene(predictors), 20)
        finally:
            predictors.close()

    asyncio.run(play())


async def until(happened: Callable[[], bool]) -> None:
    """Returns once threads have made it happen."""
    while not happened():
        await asyncio.sleep(0.001)


class Workshop:
    """Makes engines when it is told to, and remembers for whom."""

    def __init__(self) -> None:
        self.open, self.began = threading.Event(), list[str]()

    def hurry(self, model: LoadedModel, serving: Serving) -> None:
        """In place of `LoadedModel.hurry`."""
        self.began.append(f"{model.version.name}/{model.version.version}")
        assert self.open.wait(20)
        model.ready = True

    async def make(self, model: LoadedModel) -> None:
        """This one's engine, and no other's after it."""
        self.open.set()
        await until(lambda: model.ready)
        self.open.clear()


@pytest.fixture(name="workshop")
def _workshop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    workshop = Workshop()
    monkeypatch.setattr(LoadedModel, "hurry", lambda model, serving: workshop.hurry(model, serving))
    yield workshop
    workshop.open.set()
    gc.unfreeze()


async def answering(predictors: Predictors, name: str = "digits", **which: Any) -> int:
    """The number of the version that answers."""
    return (await predictors.model(name, **which)).version.version


def test_until_a_new_champion_is_ready_the_one_before_answers(service: Any, workshop: Workshop) -> None:
    """Neither reading its file nor making its engine is anybody's wait; who asks for it by name gets it."""
    service.model(seed=1)

    async def scene(predictors: Predictors) -> None:
        await workshop.make(await predictors.model("digits"))
        second = service.model(seed=2)
        assert await answering(predictors) == 1
        await until(lambda: "digits/2" in workshop.began)
        assert await answering(predictors) == 1
        assert await answering(predictors, version=2) == 2
        assert await answering(predictors, sweep=second.sweep_id) == 2
        workshop.open.set()
        await predictors.ready("digits", 2)
        assert await answering(predictors) == 2

    run(scene, service.store)


def test_a_promotion_waits_for_the_engine_but_not_for_ever(service: Any, workshop: Workshop) -> None:
    """After it the new champion answers, with its engine or without."""
    service.model(seed=1)

    async def scene(predictors: Predictors) -> None:
        await workshop.make(await predictors.model("digits"))
        service.model(seed=2)
        assert await answering(predictors) == 1
        await predictors.ready("digits", 2, within=0.0)
        predictors.forget("digits")
        assert await answering(predictors) == 2
        waiting = asyncio.create_task(predictors.ready("digits", 2))
        await until(lambda: "digits/2" in workshop.began)
        assert not waiting.done()
        workshop.open.set()
        await waiting
        assert (await predictors.model("digits")).ready

    run(scene, service.store)


def test_a_champion_that_cannot_be_loaded_does_not_silence_the_one_before(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again now and then, not by each request; the log says what is the matter."""
    service.model(seed=1)
    now = [0.0]

    async def scene(predictors: Predictors) -> None:
        await answering(predictors)
        description = Path(service.model(seed=2).path) / "model.json"
        text = description.read_text()
        description.unlink()
        await answering(predictors)
        await until(lambda: "version 2 of model 'digits' cannot be loaded" in caplog.text)
        description.write_text(text)
        for _ in range(3):
            assert await answering(predictors) == 1
        assert [model.version.version for model in predictors.loaded()] == [1]
        now[0] = 5.0
        await answering(predictors)
        await until(lambda: len(predictors.loaded()) == 2)
        assert await answering(predictors) == 2

    with caplog.at_level(logging.WARNING):
        run(scene, service.store, serving=ServingTable({}, EAGER), again=5.0, now=lambda: now[0])


def test_of_a_pinned_model_only_the_champion_stays(service: Any) -> None:
    """Its other versions make room like other models."""
    for name, seed in (("digits", 1), ("digits", 2), ("other", 3)):
        service.model(name, seed=seed)
    serving = ServingTable({"digits": Serving(engine="eager", pinned=True)}, EAGER)

    async def scene(predictors: Predictors) -> None:
        following = asyncio.create_task(predictors.follow())
        await until(lambda: len(predictors.loaded("digits")) == 1)
        await answering(predictors, version=1)
        await answering(predictors, "other")
        await asyncio.sleep(0)
        assert {(one.version.name, one.version.version) for one in predictors.loaded()} == {("digits", 2), ("other", 1)}
        service.model(seed=4)
        await answering(predictors)
        await until(lambda: len(predictors.loaded("digits")) == 2)
        assert await answering(predictors) == 3
        await answering(predictors, "other")
        await answering(predictors, version=1)
        await asyncio.sleep(0)
        assert {(one.version.name, one.version.version) for one in predictors.loaded()} == {
            ("digits", 3),
            ("digits", 1),
        }
        following.cancel()

    run(scene, service.store, serving=serving, kept=1, again=60.0)


def test_engines_are_made_for_what_was_asked_last(service: Any, workshop: Workshop) -> None:
    """And for nothing that has left memory."""
    for name in "abcd":
        service.model(name)

    async def scene(predictors: Predictors) -> None:
        await answering(predictors, "a")
        await until(lambda: workshop.began == ["a/1"])
        for name in "bcd":
            await answering(predictors, name)
        await asyncio.sleep(0)
        workshop.open.set()
        await until(lambda: len(workshop.began) == 3)
        assert workshop.began == ["a/1", "d/1", "c/1"]

    run(scene, service.store, kept=2)


def test_a_model_that_makes_room_is_freed_at_once(service: Any, workshop: Workshop) -> None:
    """Without the garbage collector, which passes over it where it was there when libraries were set aside."""
    workshop.open.set()
    for name in ("digits", "other"):
        service.model(name)

    async def scene(predictors: Predictors) -> None:
        module = weakref.ref((await predictors.model("digits")).saved.module)
        await predictors.ready("digits", 1)
        await predictors.ready("other", 1)
        await until(lambda: module() is None)

    gc.disable()
    try:
        run(scene, service.store, kept=1)
    finally:
        gc.enable()


def test_pinned_models_are_loaded_once_they_are_there(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each by itself, whatever is the matter with others, of which the log tells once."""
    broken = Path(service.model("broken").path) / "model.json"
    text = broken.read_text()
    description = json.loads(text)
    description["model"]["channels"] = [4, 4, 4, 4]  # other weights would fit, as after an upgrade
    broken.write_text(json.dumps(description))
    pinned = {name: Serving(engine="eager", pinned=True) for name in ("broken", "late", "there")}
    service.model("there")

    async def scene(predictors: Predictors) -> None:
        following = asyncio.create_task(predictors.follow())
        await until(lambda: len(predictors.loaded("there")) == 1)
        with pytest.raises(Unavailable, match="version 1 of model 'broken' cannot be loaded: Error"):
            await predictors.model("broken")
        service.model("late")
        await until(lambda: len(predictors.loaded("late")) == 1)
        broken.write_text(text)
        await until(lambda: len(predictors.loaded("broken")) == 1)
        following.cancel()

    with caplog.at_level(logging.WARNING):
        run(scene, service.store, serving=ServingTable(pinned, EAGER), again=0.0)
    assert caplog.text.count("the champion of broken is not loaded") == 1
    assert caplog.text.count("the champion of late is not loaded") == 1


def test_a_new_champion_is_made_ready_though_nobody_asks(service: Any, workshop: Workshop) -> None:
    """Where the version before is in memory or pinned: the first who asks again is answered by the new one."""
    workshop.open.set()
    for name in ("digits", "pinned"):
        service.model(name, seed=1)
    serving = ServingTable({"pinned": Serving(pinned=True)}, Serving())

    async def scene(predictors: Predictors) -> None:
        await answering(predictors)
        following = asyncio.create_task(predictors.follow())
        await until(lambda: len(predictors.loaded("pinned")) == 1)
        for name in ("digits", "pinned"):
            service.model(name, seed=2)
        await until(lambda: {"digits/2", "pinned/2"} <= set(workshop.began))
        await until(lambda: all(model.ready for model in predictors.loaded()))
        assert [await answering(predictors, name) for name in ("digits", "pinned")] == [2, 2]
        following.cancel()

    run(scene, service.store, serving=serving, again=0.0)


def test_looking_at_champions_is_not_asking(service: Any) -> None:
    """What made room stays away; what is made ready has the place of the version that it takes over from."""
    for name in "aabcd":
        service.model(name)

    async def scene(predictors: Predictors) -> None:
        def in_memory() -> set[str]:
            return {f"{model.version.name}/{model.version.version}" for model in predictors.loaded()}

        following = asyncio.create_task(predictors.follow())
        for name in "abcd":
            await answering(predictors, name)
        await answering(predictors, "a", version=1)
        service.model("c")
        await until(lambda: "c/2" in in_memory())
        assert in_memory() == {"a/1", "c/1", "c/2", "d/1"}
        await answering(predictors, "b")
        assert in_memory() == {"a/1", "b/1", "d/1"}
        following.cancel()

    run(scene, service.store, serving=ServingTable({}, EAGER), kept=3, again=0.0)


def test_a_new_champion_is_made_ready_while_models_make_room(service: Any, workshop: Workshop) -> None:
    """It takes nobody's place, and nobody its own; once it answers, the version before makes room first."""
    for name in ("digits", "other", "third"):
        service.model(name)

    async def scene(predictors: Predictors) -> None:
        await answering(predictors)
        service.model(seed=2)
        assert await answering(predictors) == 1
        await until(lambda: len(predictors.loaded("digits")) == 2)
        for name in ("other", "third", "other", "third"):
            await answering(predictors, name)
            assert await answering(predictors) == 1
        workshop.open.set()
        await until(lambda: len(predictors.loaded()) == 3 and all(model.ready for model in predictors.loaded()))
        assert await answering(predictors) == 2
        assert {(one.version.name, one.version.version) for one in predictors.loaded()} == {("digits", 2), ("third", 1)}

    run(scene, service.store, kept=2)


def test_a_version_without_engine_answers_on_for_a_broken_champion(service: Any, workshop: Workshop) -> None:
    """That it is in memory is enough."""
    service.model(seed=1)

    async def scene(predictors: Predictors) -> None:
        await answering(predictors)
        (Path(service.model(seed=2).path) / "model.json").unlink()
        for _ in range(3):
            assert await answering(predictors) == 1
            await until(lambda: len(predictors._loaded) == 1)

    run(scene, service.store)


def test_a_request_from_before_a_promotion_does_not_undo_it(service: Any, workshop: Workshop) -> None:
    """It may be answered by the version before; who asks after it is not, whichever has an engine."""
    service.model(seed=1)

    async def scene(predictors: Predictors) -> None:
        await workshop.make(await predictors.model("digits"))
        asked, may, champion = threading.Event(), threading.Event(), service.store.champion

        def slow(name: str) -> Any:
            found = champion(name)
            asked.set()
            assert may.wait(20)
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(service.store, "champion", slow)
            before = asyncio.create_task(answering(predictors))
            await until(asked.is_set)
        service.model(seed=2)
        await predictors.ready("digits", 2, within=0.0)
        predictors.forget("digits")
        may.set()
        assert await before == 1
        assert await answering(predictors) == 2

    run(scene, service.store)
