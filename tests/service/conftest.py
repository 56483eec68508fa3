"""The API over fakes, asked without a network or through a real server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI

from service.adapters.manual_clock import ManualClock
from service.adapters.memory_access import MemoryAccess
from service.adapters.memory_launcher import MemoryLauncher
from service.adapters.memory_store import MemoryStore
from service.adapters.memory_tracker import MemoryTracker
from service.api.app import create_app
from service.api.forwarding import Replicas
from service.cli.commands import main
from service.domain import Measurement, ModelVersion, Sweep, SweepState, Trial, TrialState
from service.inference.predictor import Predictors
from service.inference.serving_config import Serving, ServingTable
from service.ports import Store
from service.settings import Settings
from service.submission import Submissions
from trainables.data.dataset import Dataset, Split
from trainables.data.digits import Digits
from trainables.family import FamilyConfig
from trainables.models.contour_rnn.config import ContourRNNConfig
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.preprocessing import Preprocessing
from trainables.saved_model import save_model
from trainables.tasks import Classification, Segmentation, Task
from trainables.trial import TrainConfig, TrialConfig

SHAPE = (1, 16, 16)
EAGER = ServingTable({}, Serving(engine="eager"))
"""Other engines take seconds to be made ready; their tests ask for them."""

SPEC = {
    "name": "digits",
    "family": "narrow_resnet",
    "data": {"name": "digits"},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}},
    "search": {"trials": 4},
}


@dataclass
class Service:
    """The API's fakes, its app, and what a driver would do to the store."""

    store: Store
    access: MemoryAccess
    launcher: MemoryLauncher
    tracker: MemoryTracker
    clock: ManualClock
    settings: Settings
    app: FastAPI
    transport: httpx.BaseTransport
    http: httpx.Client
    folder: Path

    def sweep(self, name: str = "digits", **changes: Any) -> Sweep:
        """A queued sweep."""
        self.clock.advance(1)
        spec = {**SPEC, "name": name, **changes}
        return Submissions(store=self.store, clock=self.clock, weights_root=self.settings.weights_root).create(spec)

    def running(self, name: str = "digits", **changes: Any) -> Sweep:
        """A sweep with a driver."""
        sweep = self.sweep(name, **changes)
        self.store.count_attempt(sweep.id)
        return self.store.move_sweep(sweep.id, SweepState.RUNNING, at=self.clock.now())

    def trial(self, sweep: Sweep, number: int, *, value: float | None = None) -> Trial:
        """A trial after one epoch, completed where it has a value."""
        point, repeat = divmod(number, sweep.spec["search"]["repeats"])
        trial = Trial(
            id=f"{sweep.id}-{number:04}",
            sweep_id=sweep.id,
            number=number,
            repeat=repeat,
            point={"train.learning_rate": 0.001 * (point + 1)},
            created_at=self.clock.now(),
        )
        self.store.add_trial(trial)
        metrics = {"validation/accuracy": float("nan") if value is None else value}
        self.store.add_measurement(Measurement(trial_id=trial.id, step=1, at=self.clock.now(), metrics=metrics))
        if value is not None:
            return self.store.move_trial(trial.id, TrialState.COMPLETED, at=self.clock.now(), values=(value,))
        return self.store.trial(trial.id)

    def model(self, name: str = "digits", *, seed: int = 0, save: Callable[..., None] | None = None) -> ModelVersion:
        """A version of a model that tells three classes of 16 x 16 images apart, as its random weights happen to.

        Or one that `save` saves.
        """
        sweep = self.running(name)
        trial = self.trial(sweep, 0, value=0.9)
        path = self.folder / trial.id
        (save or save_random_model)(path, seed=seed)
        return self.store.add_model_version(
            name=name, sweep_id=sweep.id, trial_id=trial.id, value=0.9, path=str(path), at=self.clock.now()
        )


def save_random_model(folder: Path, *, seed: int) -> None:
    """A saved model with the weights of a fresh network."""
    config, task = NarrowResNetConfig(channels=(2, 4, 4, 4)), Classification(classes=("cat", "dog", "newt"))
    _save(folder, "narrow_resnet", config, task, _random(config, task, seed))


def save_random_segmenter(folder: Path, *, seed: int) -> None:
    """A saved recurrent model of masks, three steps long, that takes about half of the pixels to be the object."""
    config, task = ContourRNNConfig(channels=4, kernel=5, steps=3, readout="pixels"), Segmentation(covers="path")
    module = _random(config, task, seed)
    with torch.no_grad():
        logits = module.eval()(torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(seed)))
        module.state_dict()["readout.maps.bias"][0] += (logits[:, 1] - logits[:, 0]).median()
    _save(folder, "contour_rnn", config, task, module)


def _random(config: FamilyConfig, task: Task, seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build(input_shape=SHAPE, outputs=task.outputs)


def _save(folder: Path, family: str, config: FamilyConfig, task: Task, module: torch.nn.Module) -> None:
    nothing = Split(images=np.zeros((0, *SHAPE), np.uint8), targets=np.zeros(0, np.int64))
    preprocessing = Preprocessing(height=SHAPE[1], width=SHAPE[2])
    save_model(
        folder,
        trial=TrialConfig(family=family, model=config, train=TrainConfig(), data=Digits()),
        dataset=Dataset("animals", "0" * 16, task, preprocessing, nothing, nothing, nothing),
        weights=module.state_dict(),
        step=1,
        metrics={"validation/accuracy": 0.9},
    )


class _Wire(httpx.BaseTransport):
    """Requests to an ASGI app, made from threads that have no event loop."""

    def __init__(self, app: FastAPI, portal: anyio.from_thread.BlockingPortal) -> None:
        self._asgi = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> tuple[int, httpx.Headers, bytes]:
            response = await self._asgi.handle_async_request(request)
            return response.status_code, response.headers, await response.aread()

        status, headers, content = self._portal.call(ask)
        return httpx.Response(status, headers=headers, content=content, request=request)


@pytest.fixture(name="portal", scope="session")
def _portal() -> Iterator[anyio.from_thread.BlockingPortal]:
    with anyio.from_thread.start_blocking_portal() as portal:
        yield portal


@pytest.fixture(name="make_service")
def _make_service(portal: anyio.from_thread.BlockingPortal, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    clients: list[httpx.Client] = []
    closing: list[Predictors] = []

    def make(store: Store | None = None, *, replicas: Replicas | None = None, **settings: Any) -> Service:
        store = store or MemoryStore()
        access, launcher, tracker, clock = MemoryAccess(), MemoryLauncher(), MemoryTracker(), ManualClock()
        chosen = replace(Settings(home=tmp_path), **settings)
        predictors = Predictors(store, serving=EAGER, fresh=0.0)
        closing.append(predictors)
        app = create_app(
            store=store,
            access=access,
            launcher=launcher,
            tracker=tracker,
            clock=clock,
            settings=chosen,
            predictors=predictors,
            replicas=replicas,
        )
        transport = _Wire(app, portal)
        clients.append(httpx.Client(transport=transport, base_url="http://127.0.0.1"))
        return Service(store, access, launcher, tracker, clock, chosen, app, transport, clients[-1], tmp_path)

    yield make
    for client in clients:
        client.close()
    for predictors in closing:
        predictors.close()


@pytest.fixture(name="service")
def _service(make_service: Callable[..., Service]) -> Service:
    return make_service()


@contextmanager
def served(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serves the app on a port, by default a free one, with its background threads: the URL."""
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)  # a real server: there is no clock of ours to move
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
        assert not thread.is_alive(), "the server did not end"


@pytest.fixture(name="serve")
def _serve() -> Iterator[Callable[[FastAPI], str]]:
    """Serves apps on free ports with their background threads, until the test ends."""
    with ExitStack() as servers:
        yield lambda app: servers.enter_context(served(app))


@pytest.fixture(name="serving")
def _serving() -> Callable[..., AbstractContextManager[str]]:
    """Serves an app until the context ends, for tests that end a server and start another in its place."""
    return served


@pytest.fixture(name="run")
def _run(
    service: Any, serve: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command against a served app: exit status, what it printed, what it complained of."""
    monkeypatch.setenv("SWEEPSERVE_URL", serve(service.app))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run
