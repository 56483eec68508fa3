"""Which version answers, and what stays in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from service.errors import BadRequest, NotFound, Unavailable
from service.inference import loaded_model, predictor
from service.inference.engine import Choice, Eager, Images, Outputs
from service.inference.loaded_model import Question
from service.inference.predictor import Prediction, Predictors
from service.inference.serving_config import Serving, ServingTable, serving_table
from service.inference.uploads import Upload
from trainables.saved_model import load_model

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
FILE = Upload("image", bytes(cv2.imencode(".png", IMAGE[:, :, ::-1])[1]))
EAGER = ServingTable({}, Serving(engine="eager"))


async def ask(predictors: Predictors, name: str, **which: Any) -> Prediction:
    """What a model says of the image."""
    model = await predictors.model(name, **which)
    return await predictors.predict(
        model, [FILE], lambda saved, outputs: saved.task.answers(outputs), max_pixels=10_000
    )


def run(scene: Callable[[Predictors], Coroutine[Any, Any, None]], store: Any, **options: Any) -> None:
    """Plays a scene with predictors of its own."""

    async def play() -> None:
        predictors = Predictors(store, **{"serving": EAGER, "fresh": 0.0, **options})
        try:
            await asyncio.wait_for(scene(predictors), 60)
        finally:
            predictors.close()

    asyncio.run(play())


def test_the_champion_answers_as_its_saved_model_does(service: Any) -> None:
    """The answer carries the version that gave it; colour and size are fitted as in training."""
    service.model(seed=1)
    champion = service.model(seed=2)

    async def scene(predictors: Predictors) -> None:
        prediction = await ask(predictors, "digits")
        assert prediction.version == champion
        (expected,) = load_model(Path(champion.path)).predict([IMAGE])
        assert prediction.answer[0]["class"] == expected["class"]
        assert prediction.answer[0]["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)

    run(scene, service.store)


def test_a_version_may_be_asked_by_its_number_or_its_sweep(service: Any) -> None:
    """Whoever is champion; what is not there is not found."""
    first, second = service.model(seed=1), service.model(seed=2)

    async def scene(predictors: Predictors) -> None:
        assert (await ask(predictors, "digits", version=1)).version == first
        assert (await ask(predictors, "digits", sweep=first.sweep_id)).version == first
        assert (await ask(predictors, "digits")).version == second
        for which, said in (
            ({"version": 3}, "version 3"),
            ({"version": 0}, "version 0"),
            ({"sweep": ""}, "version of sweep ''"),
            ({"version": 1, "sweep": second.sweep_id}, f"version 1 of sweep '{second.sweep_id}'"),
        ):
            with pytest.raises(NotFound, match=f"^there is no {said} of model 'digits'$"):
                await ask(predictors, "digits", **which)

    run(scene, service.store)


def test_a_loaded_version_needs_no_files_any_more(service: Any) -> None:
    """The second request is answered from memory."""
    version = service.model()

    async def scene(predictors: Predictors) -> None:
        first = await ask(predictors, "digits")
        (Path(version.path) / "model.safetensors").unlink()
        assert await ask(predictors, "digits") == first

    run(scene, service.store)


def test_only_so_many_models_stay_in_memory(service: Any) -> None:
    """The one that was asked longest ago makes room, unless it is pinned; it may be loaded again later."""
    for name in ("pinned", "a", "b"):
        service.model(name)

    async def scene(predictors: Predictors) -> None:
        following = asyncio.create_task(predictors.follow())
        while [model.version.name for model in predictors.loaded()] != ["pinned"]:
            await asyncio.sleep(0.001)
        following.cancel()
        for name in ("a", "b"):
            await ask(predictors, name)
            await asyncio.sleep(0)
        assert {model.version.name for model in predictors.loaded()} == {"pinned", "b"}
        await ask(predictors, "a")

    serving = ServingTable({"pinned": Serving(engine="eager", pinned=True)}, Serving(engine="eager"))
    run(scene, service.store, kept=1, serving=serving)


def test_requests_that_meet_load_a_model_once(service: Any) -> None:
    """They all wait for the same loading; one that fails is tried again by the next request."""
    version = service.model()
    description = Path(version.path) / "model.json"
    text = description.read_text()
    description.unlink()

    async def scene(predictors: Predictors) -> None:
        outcomes = await asyncio.gather(*(ask(predictors, "digits") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        description.write_text(text)
        models = await asyncio.gather(*(predictors.model("digits") for _ in range(3)))
        assert models[0] is models[1] is models[2]

    run(scene, service.store)


def test_a_model_that_does_not_run_is_unavailable(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of memory, say: the next request tries again."""
    service.model()

    def run_out(engine: Eager, images: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    async def scene(predictors: Predictors) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Eager, "run", run_out)
            with pytest.raises(Unavailable, match="cannot be loaded: no memory"):
                await predictors.model("digits")
        await predictors.model("digits")

    run(scene, service.store)


def test_a_store_that_is_away_does_not_stop_the_champion(service: Any) -> None:
    """The last one that was known answers on; a name that was never asked cannot be looked up."""
    champion = service.model()

    class Away:
        def champion(self, name: str) -> None:
            raise Unavailable("the database does not answer")

    async def scene(predictors: Predictors) -> None:
        await ask(predictors, "digits")
        predictors._store = Away()  # type: ignore[assignment]
        assert (await ask(predictors, "digits")).version == champion
        with pytest.raises(Unavailable):
            await ask(predictors, "other")

    run(scene, service.store)


def test_the_store_is_asked_once_in_a_while(service: Any) -> None:
    """Within that time a new champion does not answer yet, unless this process made it one."""
    now = [0.0]
    first = service.model(seed=1)

    async def scene(predictors: Predictors) -> None:
        assert (await ask(predictors, "digits")).version == first
        second = service.model(seed=2)
        now[0] = 0.19
        assert await predictors.version("digits") == first
        now[0] = 0.21
        assert await predictors.version("digits") == second
        third = service.model(seed=3)
        predictors.forget("digits")
        assert (await ask(predictors, "digits")).version == third

    run(scene, service.store, fresh=0.2, now=lambda: now[0])


class Slow:
    """A store that answers who is the champion when it is told to; of versions it tells at once."""

    def __init__(self, store: Any) -> None:
        self.asked, self.answer, self._champion = 0, threading.Event(), store.champion
        self.model_versions = store.model_versions

    def champion(self, name: str) -> Any:
        """Who it was when it was asked."""
        self.asked += 1
        found = self._champion(name)
        assert self.answer.wait(20)
        return found


def test_who_asks_while_the_store_is_asked_waits_for_that_answer(service: Any) -> None:
    """However many they are; also where it is an error, which is asked again by the next."""
    first = service.model()

    async def scene(predictors: Predictors) -> None:
        slow = predictors._store = Slow(service.store)  # type: ignore[assignment]
        many = [asyncio.create_task(predictors.version(name)) for name in ["digits"] * 20 + ["other"] * 20]
        while slow.asked < 2:
            await asyncio.sleep(0)
        slow.answer.set()
        answers = await asyncio.gather(*many, return_exceptions=True)
        assert answers[:20] == [first] * 20
        assert all(isinstance(answer, NotFound) for answer in answers[20:])
        with pytest.raises(NotFound):
            await predictors.version("other")
        assert slow.asked == 3

    run(scene, service.store, fresh=60.0)


def test_an_answer_from_before_a_promotion_is_not_kept(service: Any) -> None:
    """Who asks after it has the new champion, though the old answer comes later."""
    first = service.model(seed=1)

    async def scene(predictors: Predictors) -> None:
        slow = predictors._store = Slow(service.store)  # type: ignore[assignment]
        before = asyncio.create_task(predictors.version("digits"))
        while not slow.asked:
            await asyncio.sleep(0)
        second = service.model(seed=2)
        predictors.forget("digits")
        slow.answer.set()
        assert await before == first
        assert await predictors.version("digits") == second

    run(scene, service.store, fresh=60.0)


def test_a_known_champion_answers_while_the_store_takes_long(service: Any) -> None:
    """All ask it once; who asks for a name that is not known yet, or whose champion was changed here, waits."""
    first = service.model(seed=1)

    async def scene(predictors: Predictors) -> None:
        await ask(predictors, "digits")
        slow = predictors._store = Slow(service.store)  # type: ignore[assignment]
        second = service.model(seed=2)
        for _ in range(3):
            assert await predictors.version("digits") == first
        unknown = asyncio.create_task(predictors.version("other"))
        predictors.forget("digits")
        promoted = asyncio.create_task(predictors.version("digits"))
        while slow.asked < 3:
            await asyncio.sleep(0)
        assert not promoted.done()
        slow.answer.set()
        assert await promoted == second
        with pytest.raises(NotFound):
            await unknown

    run(scene, service.store, patience=0.0)


def test_models_that_are_being_loaded_hold_up_no_others(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many: to ask the store who the champion is takes none of their threads."""
    names = [f"slow{number}" for number in range(6)]
    for name in ("digits", *names):
        service.model(name)
    may = threading.Event()

    async def scene(predictors: Predictors) -> None:
        before = await ask(predictors, "digits")
        monkeypatch.setattr(loaded_model, "load_model", lambda *a, **k: may.wait(20) and load_model(*a, **k))
        loading = [asyncio.create_task(predictors.model(name)) for name in names]
        async with asyncio.timeout(10):
            while predictors._loading._work_queue.qsize() < 2:
                await asyncio.sleep(0)
            assert await ask(predictors, "digits") == before
            assert await predictors.known_versions("digits") == [before.version]
        may.set()
        await asyncio.gather(*loading)

    run(scene, service.store)


def test_the_garbage_collector_passes_over_the_libraries_of_engines(service: Any) -> None:
    """They are set aside once an engine is there; looking through them would stop every request for a moment."""
    service.model()
    predictor._set_engines_aside.cache_clear()
    before = gc.get_freeze_count()

    async def scene(predictors: Predictors) -> None:
        model = await predictors.model("digits")
        async with asyncio.timeout(60):
            while gc.get_freeze_count() == before:
                await asyncio.sleep(0.01)
        assert model.ready

    try:
        run(scene, service.store, serving=ServingTable({}, Serving()))
        assert gc.get_freeze_count() > 100_000
    finally:
        gc.unfreeze()


def test_a_faster_engine_takes_over(service: Any) -> None:
    """PyTorch answers at once; when another engine is ready, it gives the same answers."""
    service.model()

    async def scene(predictors: Predictors) -> None:
        model = await predictors.model("digits")
        before = await ask(predictors, "digits")
        model.hurry(dataclasses.replace(Serving(), engine="onnxruntime"))
        assert model.choice.engine.name == "onnxruntime"
        after = await ask(predictors, "digits")
        assert after.answer[0]["probabilities"] == pytest.approx(before.answer[0]["probabilities"], abs=1e-5)

    run(scene, service.store)


class Counted:
    """An engine that gives each image's first pixel, and keeps how many images it was asked about at once."""

    name = "counted"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def run(self, images: Images) -> Outputs:
        """The first pixels."""
        self.asked.append(len(images))
        return images[:, 0, 0, :1].astype(np.float32)


def test_a_request_of_more_images_than_a_batch_is_run_in_pieces(service: Any) -> None:
    """In their order. Nothing more is run once nobody waits for the answer."""
    service.model()
    images = np.arange(7, dtype=np.uint8)[:, None, None, None].repeat(16, 2).repeat(16, 3)

    async def scene(predictors: Predictors) -> None:
        model, engine = await predictors.model("digits"), Counted()
        model.choice = Choice(engine, ())
        found = await predictors.predict(model, images, lambda saved, outputs: outputs[:, 0].tolist(), max_pixels=0)
        assert (found.answer, engine.asked) == ([0, 1, 2, 3, 4, 5, 6], [3, 3, 1])
        question = Question(model, images, lambda saved, outputs: outputs, None, False, 0)
        (answer,) = model.answer([question], lambda: len(engine.asked) < 5)
        assert isinstance(answer, Unavailable)
        assert engine.asked == [3, 3, 1, 3, 3]

    run(scene, service.store, serving=ServingTable({}, Serving(engine="eager", max_batch=3)))


def test_steps_are_for_recurrent_models(service: Any) -> None:
    """Others say so."""
    service.model()

    async def scene(predictors: Predictors) -> None:
        model = await predictors.model("digits")
        with pytest.raises(BadRequest, match="steps: need a recurrent model, 'digits' is a narrow_resnet"):
            await predictors.predict(model, [FILE], lambda saved, outputs: outputs, steps=3, max_pixels=1000)

    run(scene, service.store)


def test_how_each_model_is_served_is_read_from_json() -> None:
    """A model's own settings over those of all others; faults are named."""
    table = serving_table('{"*": {"max_batch": 8}, "paths": {"pinned": true, "engine": "eager"}}')
    assert table["anything"] == Serving(max_batch=8)
    assert table["paths"] == Serving(max_batch=8, pinned=True, engine="eager")
    assert table.pinned == ["paths"]
    for text, reason in {
        "[]": "need an object of settings by model name",
        "{": "SWEEPSERVE_SERVING: ",
        '{"a": {"max_batches": 1}}': "did you mean 'max_batch'",
        '{"*": {"max_batch": 0}}': "max_batch: need a whole number >= 1 and <= 1024, got 0",
        '{"*": {"pinned": true}}': "pinned: name the models",
    }.items():
        with pytest.raises(ValueError, match=reason):
            serving_table(text)
