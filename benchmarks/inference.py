"""How many images a second does a served model answer, and how long does one take? Beside what others would use.

    python benchmarks/inference.py [--seconds 3] [--clients 1 8 32 128] [--flips 100]

One model at a time is served by each server in turn, and asked by so many clients, each over a connection of its own,
one image a request: the PNG in base64 in JSON, or, for `mlflow models serve`, which takes tensors only, the pixels as
numbers in JSON. Every server's answer is checked against the saved model's own. The clients are one process on the same
machine and take their share of it. A client that has its answer asks again at once; this gives the throughput. Then
requests come at one rate, half of what plain FastAPI manages with 32 clients, whether answers came or not, and the time
counts from when a request was due.

Last, the champion is changed `--flips` times while 32 clients ask: how many requests fail, and whether each answer is
that of the version which it names. All of it takes about eight minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving.load import Outcome, connect, load, measure
from serving.models import MODELS, bare_call, make_model
from serving.process import ROOT, Server
from serving.questions import request_for, said
from serving.servers import NAME, SERVERS

from trainables.saved_model import SavedModel, load_model

COMPARED = "32"
"""Clients at which servers are compared."""
PACKAGES = ("torch", "openvino", "onnxruntime", "mlflow", "litserve", "fastapi", "uvicorn")


def serve_all(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One model, every server."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="inference-") as scratch:
        folder = Path(scratch)
        for number in range(2):
            make_model(folder / str(number), name, seed=number)
        models = [load_model(folder / str(number)) for number in range(2)]
        found["bare_call_ms"] = bare_call(models[0])
        for server in arguments.servers:
            rate = found["fastapi"][COMPARED]["requests_a_second"] / 2 if COMPARED in found.get("fastapi", {}) else None
            running = Server(server, folder)
            try:
                found[server] = ask(server, running, models, arguments, name, rate)
            except (AssertionError, TimeoutError, OSError) as error:
                found[server] = {"did not serve": str(error)}
            finally:
                running.end()
            print(f"{name} {server}: {json.dumps(found[server])}", flush=True)
    found["verdict"] = verdict(found)
    print(f"{name}: {json.dumps(found['verdict'])}", flush=True)
    return found


def ask(
    server: str,
    running: Server,
    models: Sequence[SavedModel],
    arguments: argparse.Namespace,
    name: str,
    rate: float | None,
) -> dict[str, Any]:
    """Throughput and latency by the number of clients, and at a rate."""
    request, image = request_for(server, MODELS[name][2])
    expected = [model.predict([image])[0]["probabilities"]["yes"] for model in models]
    check(server, running.wait(request), expected[0])
    found: dict[str, Any] = {}
    if server == "sweepserve":
        found["engine"] = engine(running.port)
    for clients in arguments.clients:
        found[str(clients)] = phase(server, running, request, expected[0], clients=clients, seconds=arguments.seconds)
    if rate is not None:
        clients = max(arguments.clients)
        at_rate = phase(server, running, request, expected[0], clients=clients, seconds=arguments.seconds, rate=rate)
        found["at_rate"] = {"rate": round(rate, 1), **at_rate}
    if server == "sweepserve" and arguments.flips:
        found["flips"] = flip(running.port, request, expected, arguments.flips)
    return found


def phase(server: str, running: Server, request: bytes, expected: float, **options: Any) -> dict[str, Any]:
    """One way of asking."""
    before = running.processor_seconds()
    outcome = measure(running.port, request, **options)
    spent = running.processor_seconds() - before
    if outcome.bodies:
        check(server, outcome.bodies[-1], expected)
    # What does not depend on who else uses the machine; of all requests, those of the first second too.
    return {**outcome.summary(), "processor_ms_a_request": round(1000 * spent / outcome.asked, 3)}


def check(server: str, body: bytes, expected: float) -> None:
    """The answer is the saved model's."""
    difference = abs(said(server, body) - expected)
    assert difference < 1e-5, f"another answer than the saved model's, by {difference}"


def engine(port: int) -> list[Any]:
    """What runs the model, once it is settled."""
    for _ in range(600):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/{NAME}") as answer:
            loaded = json.loads(answer.read())["loaded"]
        if loaded and all(one["ready"] for one in loaded):
            return [{key: one[key] for key in ("engine", "notes")} for one in loaded]
        time.sleep(0.2)
    raise TimeoutError("the engine does not get ready")


def verdict(found: Mapping[str, Any]) -> dict[str, Any]:
    """Ours beside the best of the others, at `COMPARED` clients; and what one request takes beyond the bare call."""
    ours = found.get("sweepserve", {})
    others = {
        name: one[COMPARED] for name, one in found.items() if name in SERVERS and COMPARED in one and one[COMPARED]["n"]
    }
    others.pop("sweepserve", None)
    told: dict[str, Any] = {}
    if "1" in ours and ours["1"]["p50_ms"] is not None:
        told["added_ms_at_one_client"] = round(ours["1"]["p50_ms"] - found["bare_call_ms"], 2)
    if COMPARED in ours and ours[COMPARED]["n"] and others:
        best = max(others, key=lambda name: others[name]["requests_a_second"])
        told["best_other"] = best
        told["times_its_throughput"] = round(ours[COMPARED]["requests_a_second"] / others[best]["requests_a_second"], 2)
        told["p99_ms_ours_and_its"] = [ours[COMPARED]["p99_ms"], others[best]["p99_ms"]]
        told["processor_time_saved_times"] = round(
            min(one["processor_ms_a_request"] for one in others.values()) / ours[COMPARED]["processor_ms_a_request"], 2
        )
    return told


def flip(port: int, request: bytes, expected: Sequence[float], flips: int) -> dict[str, Any]:
    """Changes the champion again and again while 32 clients ask."""

    async def run() -> tuple[Outcome, int]:
        asking = asyncio.create_task(load(port, request, clients=32, seconds=flips * 0.05, keep=True))
        done = 0
        for number in range(flips):
            body = json.dumps({"version": 2 - number % 2}).encode()
            head = f"POST /v1/models/{NAME}/promote HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            connection = await connect(port)
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


def main() -> None:
    """All models, all servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--flips", type=int, default=100)
    arguments = parser.parse_args()
    began, load_before = time.monotonic(), os.getloadavg()
    measured = {name: serve_all(name, arguments) for name in arguments.models}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True, cwd=ROOT)
    content = {
        "measured": measured,
        "seconds": arguments.seconds,
        "environment": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(time.monotonic() - began),
            "commit": commit.stdout.strip(),
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average_before_and_after": [load_before, os.getloadavg()],
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }
    path = ROOT / "benchmarks" / "results" / "inference.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
