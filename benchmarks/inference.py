"""How many images a second does a served model answer, and how long does one take? Beside what others would use.

    python benchmarks/inference.py [--seconds 5] [--clients 1 8 32 128] [--flips 100]

One model at a time is served by each server in turn, and asked by so many clients, each over a connection of its own,
one image a request: the PNG in base64 in JSON, or, for `mlflow models serve`, which takes tensors only, the pixels as
numbers in JSON. Every server's answer is checked against the saved model's own. The clients are one process on the same
machine and take their share of it. A client that has its answer asks again at once; `--rate R` instead sends R requests
a second whether answers came or not, and counts the time from when a request should have gone out.

Then the champion is changed `--flips` times while 32 clients ask: how many requests fail, and whether each answer is
that of the version which it names.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import litserve
import numpy as np
import psutil
import torch

from trainables.data.dataset import Dataset, Split
from trainables.data.digits import Digits
from trainables.families import FAMILIES
from trainables.preprocessing import Preprocessing
from trainables.saved_model import SavedModel, load_model, save_model
from trainables.tasks import Classification
from trainables.trial import TrainConfig, TrialConfig

ROOT = Path(__file__).parents[1]
MODELS: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "nRN18-64": ("narrow_resnet", {}, 64),
    "nRN18-150": ("narrow_resnet", {}, 150),
    "spatial-rnn-28": ("spatial_rnn", {"network": "cnn"}, 28),
}
NAME = "model"
PEERS = ("sweepserve", "fastapi", "litserve", "mlflow")
START_LIMIT = 180.0


def make_model(folder: Path, name: str, *, seed: int = 0) -> None:
    """A saved model with random weights, which take as long as trained ones."""
    family, settings, side = MODELS[name]
    nothing = Split(images=np.zeros((0, 1, side, side), np.uint8), targets=np.zeros(0, np.int64))
    task, preprocessing = Classification(classes=("no", "yes")), Preprocessing(height=side, width=side)
    config = FAMILIES[family].from_dict(dict(settings))
    torch.manual_seed(seed)
    weights = config.build(input_shape=preprocessing.input_shape, outputs=task.outputs).state_dict()
    trial = TrialConfig(family=family, model=config, train=TrainConfig(), data=Digits())
    dataset = Dataset("random", "0" * 16, task, preprocessing, nothing, nothing, nothing)
    save_model(folder, trial=trial, dataset=dataset, weights=weights, step=1, metrics={})


# Servers, each in a process of its own


def serve_sweepserve(folder: Path, port: int) -> None:
    """The real API on a database of its own, with two versions of the model."""
    from service.adapters.clock import SystemClock
    from service.adapters.sql_store import SqlStore
    from service.api.server import serve
    from service.domain import Sweep, Trial, TrialState
    from service.settings import Settings
    from service.spec import SweepSpec

    home = folder / "home"
    home.mkdir()
    settings = Settings(home=home, port=port, serving=json.dumps({NAME: {"pinned": True, "max_queue": 100_000}}))
    store, now = SqlStore(settings.database_url), SystemClock().now()
    store.migrate()
    spec = SweepSpec.from_dict({"name": NAME, "family": "narrow_resnet", "data": {"name": "digits"}}).to_dict()
    store.add_sweep(Sweep(id="sweep", name=NAME, spec=spec, created_at=now))
    from service.domain import SweepState

    store.move_sweep("sweep", SweepState.STOPPED, at=now)  # nothing to launch
    for number in range(2):
        trial = Trial(id=f"trial-{number}", sweep_id="sweep", number=number, point={}, created_at=now)
        store.add_trial(trial)
        store.move_trial(trial.id, TrialState.COMPLETED, at=now, values=(0.5,))
        store.add_model_version(
            name=NAME, sweep_id="sweep", trial_id=trial.id, value=0.5, path=str(folder / str(number)), at=now
        )
    store.promote(NAME, 1, at=now)
    store.close()
    serve(settings)


def serve_fastapi(folder: Path, port: int) -> None:
    """What one writes in ten minutes: FastAPI around the eager model."""
    import uvicorn
    from fastapi import Body, FastAPI

    model, app = load_model(folder / "0"), FastAPI()

    @app.post("/predict")
    def predict(images: list[str] = Body(embed=True)) -> Any:  # noqa: B008
        return {"predictions": model.predict([_decoded(text) for text in images])}

    uvicorn.run(app, port=port, log_level="error", access_log=False)


class LitApi(litserve.LitAPI):  # type: ignore[misc]
    """The eager model behind LitServe's queue."""

    folder = Path()

    def setup(self, _: str) -> None:
        """Loads it."""
        self.model = load_model(self.folder / "0")

    def decode_request(self, request: Any, **_: Any) -> Any:
        """The pixels."""
        return _decoded(request["images"][0])

    def batch(self, inputs: list[Any]) -> list[Any]:
        """A list is what it takes."""
        return inputs

    def predict(self, x: list[Any], **_: Any) -> list[Any]:
        """Its answers."""
        return self.model.predict(x)

    def unbatch(self, output: list[Any]) -> list[Any]:
        """One each."""
        return output

    def encode_response(self, output: Any, **_: Any) -> Any:
        """As the others answer."""
        return {"predictions": [output]}


def serve_litserve(folder: Path, port: int) -> None:
    """LitServe with its batching."""
    api = LitApi(max_batch_size=32, batch_timeout=0.005)
    api.folder = folder
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=port, log_level="error", generate_client_file=False
    )


def serve_mlflow(folder: Path, port: int) -> None:
    """`mlflow models serve` of the model as we log it."""
    from service.adapters.mlflow_package import package

    packaged = folder / "mlflow"
    package(folder / "0", packaged, run_id="0" * 32, model_id="m-" + "0" * 32)
    program = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(packaged),
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts uvicorn by name
    os.execv(sys.executable, program)  # noqa: S606


def _decoded(text: str) -> Any:
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE)


SERVERS: Mapping[str, Callable[[Path, int], None]] = {
    "sweepserve": serve_sweepserve, "fastapi": serve_fastapi, "litserve": serve_litserve, "mlflow": serve_mlflow
}  # fmt: skip


# Clients


@dataclass
class Outcome:
    """What clients saw."""

    latencies: list[float] = field(default_factory=list)
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """Of all answers where they were asked for, else of the last one."""


class Connection(asyncio.Protocol):
    """One keep-alive connection of HTTP/1.1 that reads one answer at a time."""

    def connection_made(self, transport: Any) -> None:
        """Ready."""
        self.transport, self._read, self._answer = transport, b"", None

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Some of the answer."""
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        head = self._read[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._read) >= end + 4 + length:
            body, self._read = self._read[end + 4 : end + 4 + length], b""
            if not self._answer.done():
                self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits is told."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed"))


async def load(
    port: int, request: bytes, *, clients: int, seconds: float, rate: float | None, keep: bool = False
) -> Outcome:
    """Asks for so many seconds, after one second that does not count."""
    outcome, loop = Outcome(), asyncio.get_running_loop()
    began = loop.time()
    counts_from, ends = began + 1, began + 1 + seconds

    async def client(number: int) -> None:
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        due = began + number / rate if rate else 0.0
        while loop.time() < ends:
            if rate:
                await asyncio.sleep(max(0.0, due - loop.time()))
            asked = due if rate else loop.time()
            outcome.asked += 1
            try:
                status, body = await connection.ask(request)
            except OSError as error:
                outcome.failures.append(repr(error))
                _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
                continue
            if status != 200:
                outcome.failures.append(f"{status} {body[:200]!r}")
            elif asked >= counts_from:
                outcome.latencies.append(loop.time() - asked)
                if keep or not outcome.bodies:
                    outcome.bodies.append(body)
            due += clients / rate if rate else 0.0
        connection.transport.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return outcome


def request_for(server: str, side: int) -> tuple[bytes, np.ndarray[Any, Any]]:
    """One request, and its image."""
    image = np.random.default_rng(7).integers(0, 256, (side, side), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (9, 9), 0)
    png = cv2.imencode(".png", image)[1].tobytes()
    paths = {"sweepserve": f"/v1/models/{NAME}/predict", "mlflow": "/invocations"}
    document = (
        {"inputs": image[None, None].tolist()} if server == "mlflow" else {"images": [base64.b64encode(png).decode()]}
    )
    body = json.dumps(document).encode()
    head = f"POST {paths.get(server, '/predict')} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body, image


def said(server: str, body: bytes) -> float:
    """The probability of "yes"."""
    answer = json.loads(body)["predictions"]
    if server == "mlflow":
        return float(answer["probabilities"][0][1])
    return float(answer[0]["probabilities"]["yes"])


class Server:
    """A server in a process group of its own."""

    def __init__(self, server: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", server, str(folder), str(self.port)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait(self, request: bytes) -> None:
        """Until it answers."""
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "the server ended"
            try:
                outcome = asyncio.run(load(self.port, request, clients=1, seconds=0.1, rate=None))
                if outcome.asked and not outcome.failures:
                    return
                time.sleep(0.5)
            except OSError:
                time.sleep(0.5)
        raise TimeoutError("the server does not answer")

    def processor_seconds(self) -> float:
        """What all of its processes have used so far."""
        top = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (top, *top.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def end(self) -> None:
        """Ends all of it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(15)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                continue


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One model, every server."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="inference-") as scratch:
        folder = Path(scratch)
        for number in range(2):
            make_model(folder / str(number), name, seed=number)
        models = [load_model(folder / str(number)) for number in range(2)]
        found["bare call, ms"] = bare_call(models[0])
        for server in arguments.servers:
            running = Server(server, folder)
            try:
                found[server] = ask(server, running, models, arguments, name)
            except (AssertionError, TimeoutError, OSError) as error:
                found[server] = {"did not serve": str(error)}
            finally:
                running.end()
            print(name, server, json.dumps(found[server]), flush=True)
    return found


def ask(
    server: str, running: Server, models: Sequence[SavedModel], arguments: argparse.Namespace, name: str
) -> dict[str, Any]:
    """Throughput and latency by the number of clients."""
    request, image = request_for(server, MODELS[name][2])
    expected = [model.predict([image])[0]["probabilities"]["yes"] for model in models]
    running.wait(request)
    found: dict[str, Any] = {}
    if server == "sweepserve":
        found["engine"] = engine(running.port)
    for clients in arguments.clients:
        before = running.processor_seconds()
        outcome = asyncio.run(
            load(running.port, request, clients=clients, seconds=arguments.seconds, rate=arguments.rate)
        )
        spent = running.processor_seconds() - before
        assert outcome.latencies, outcome.failures[:3]
        assert abs(said(server, outcome.bodies[-1]) - expected[0]) < 1e-5, "another answer than the saved model's"
        cuts = statistics.quantiles(outcome.latencies, n=100) if len(outcome.latencies) > 1 else [0.0] * 99
        found[str(clients)] = {
            "requests_a_second": round(len(outcome.latencies) / arguments.seconds, 1),
            "p50_ms": round(1000 * statistics.median(outcome.latencies), 2),
            "p99_ms": round(1000 * cuts[98], 2),
            # What does not depend on who else uses the machine; of all requests, those of the first second too.
            "processor_ms_a_request": round(1000 * spent / outcome.asked, 3),
            "n": len(outcome.latencies),
            "failed": len(outcome.failures),
        }
    if server == "sweepserve" and arguments.flips:
        found["flips"] = flip(running.port, request, expected, arguments.flips)
    return found


def engine(port: int) -> list[Any]:
    """What runs the model, once it is settled."""
    for _ in range(600):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/{NAME}") as answer:
            loaded = json.loads(answer.read())["loaded"]
        if loaded and all(one["ready"] for one in loaded):
            return [{key: one[key] for key in ("engine", "notes")} for one in loaded]
        time.sleep(0.2)
    raise TimeoutError("the engine does not get ready")


def flip(port: int, request: bytes, expected: Sequence[float], flips: int) -> dict[str, Any]:
    """Changes the champion again and again while 32 clients ask."""

    async def run() -> tuple[Outcome, int]:
        asking = asyncio.create_task(load(port, request, clients=32, seconds=flips * 0.05, rate=None, keep=True))
        done = 0
        for number in range(flips):
            body = json.dumps({"version": 2 - number % 2}).encode()
            head = f"POST /v1/models/{NAME}/promote HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
            status, _ = await connection.ask(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            connection.transport.close()
            done += status == 200
            await asyncio.sleep(0.04)
        return await asking, done

    outcome, done = asyncio.run(run())
    answers = [json.loads(body) for body in outcome.bodies]
    wrong = sum(
        abs(answer["predictions"][0]["probabilities"]["yes"] - expected[answer["version"] - 1]) > 1e-5
        for answer in answers
    )
    return {
        "flips": done,
        "answers": len(answers),
        "by_version": {number: sum(answer["version"] == number for answer in answers) for number in (1, 2)},
        "failed": len(outcome.failures),
        "answered_by_another_version_than_named": wrong,
    }


def bare_call(model: SavedModel) -> float:
    """Median milliseconds of the eager model on one image, without any server."""
    image = np.zeros((model.preprocessing.height, model.preprocessing.width), np.uint8)
    seconds = []
    for _ in range(50):
        began = time.perf_counter()
        model.outputs([image])
        seconds.append(time.perf_counter() - began)
    return round(1000 * statistics.median(seconds), 3)


def main() -> None:
    """All models, or one server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--servers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--rate", type=float, default=None, help="requests a second, in all, whatever the answers do")
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--serve", nargs=3, metavar=("SERVER", "FOLDER", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        server, folder, port = arguments.serve
        SERVERS[server](Path(folder), int(port))
        return
    load_before = os.getloadavg()
    measured = {name: measure(name, arguments) for name in arguments.models}
    content = {
        "measured": measured,
        "seconds": arguments.seconds,
        "rate": arguments.rate,
        "environment": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": subprocess.run(
                ["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True, cwd=ROOT
            ).stdout.strip(),
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average_before_and_after": [load_before, os.getloadavg()],
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("torch", "openvino", "onnxruntime", "mlflow", "litserve", "fastapi", "uvicorn")
            },
        },
    }
    path = ROOT / "benchmarks" / "results" / "inference.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
