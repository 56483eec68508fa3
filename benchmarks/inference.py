"""How many images a second does a served model answer, and how long does one take? Beside what others would use.

    python benchmarks/inference.py [--seconds 3] [--rounds 3] [--clients 1 8 128] [--flips 100]

One model at a time is served by every server, all but the one that is asked halted, and asked by so many clients, each
over a connection of its own, one image a request: the PNG in base64 in JSON, or, for `mlflow models serve`, which takes
tensors only, the pixels as numbers in JSON. Every server's answer is checked against the saved model's own. The clients
are one process on the same machine and take their share of it. A client that has its answer asks again at once; this
gives the throughput. 32 clients ask the servers in turn, `--rounds` times, since a shared machine is not equally fast
all the time. Then requests come at one rate, half of what plain FastAPI manages with 32 clients, whether answers came
or not, and the time counts from when a request was due.

Last, the champion is changed `--flips` times while 32 clients ask: how many requests fail, and whether each answer is
that of the version which it names. All of it takes about eleven minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from serving.load import Outcome, connect, load, measure
from serving.models import MODELS, alone, bare_call, make_model
from serving.process import Server
from serving.questions import request_for, said
from serving.servers import NAME, SERVERS

from benchmarks.recorded import record
from trainables.saved_model import SavedModel, load_model

COMPARED = "32"
"""Clients at which servers are compared."""
PACKAGES = ("torch", "openvino", "onnxruntime", "mlflow", "litserve", "fastapi", "uvicorn")


def serve_all(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One model, every server."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="inference-") as scratch, ExitStack() as ending:
        folder = Path(scratch)
        for number in range(2):
            make_model(folder / str(number), name, seed=number)
        models = [load_model(folder / str(number)) for number in range(2)]
        found["bare_call_ms"] = bare_call(models[0])
        asked: dict[str, Asked] = {}
        for server in arguments.servers:
            try:
                asked[server] = Asked(server, folder, models, name, ending)
                found[server] = asked[server].engine()
            except (AssertionError, TimeoutError, OSError) as error:
                found[server] = {"did not serve": str(error)}
        found["engine_alone"] = alone(models[0])
        for clients in arguments.clients:
            if str(clients) != COMPARED:
                for server, one in asked.items():
                    found[server][str(clients)] = one.phase(clients=clients, seconds=arguments.seconds)
        rounds: dict[str, list[dict[str, Any]]] = {server: [] for server in asked}
        for _ in range(arguments.rounds):
            for server, one in asked.items():
                rounds[server].append(one.phase(clients=int(COMPARED), seconds=arguments.seconds))
        for server, measured in rounds.items():
            found[server][COMPARED] = together(measured)
        if "fastapi" in asked:
            rate = found["fastapi"][COMPARED]["requests_a_second"] / 2
            for server, one in asked.items():
                at_rate = one.phase(clients=max(arguments.clients), seconds=arguments.seconds, rate=rate)
                found[server]["at_rate"] = {"rate": round(rate, 1), **at_rate}
        if "sweepserve" in asked and arguments.flips:
            found["sweepserve"]["flips"] = asked["sweepserve"].flip(arguments.flips)
        found["verdict"] = verdict(found)
    print(f"{name}: {json.dumps(found)}", flush=True)
    return found


class Asked:
    """A server that serves the models; it has the processor only while it is asked.

    Raises:
        AssertionError: it answers otherwise than the saved model.
        TimeoutError: it does not answer.
    """

    def __init__(self, server: str, folder: Path, models: Sequence[SavedModel], name: str, ending: ExitStack) -> None:
        self._server, self._running = server, Server(server, folder)
        ending.callback(self._running.end)
        self._request, image = request_for(server, MODELS[name][2])
        self._expected = [model.predict([image])[0]["probabilities"]["yes"] for model in models]
        check(server, self._running.wait(self._request), self._expected[0])
        self._engine = {"engine": engine(self._running.port)} if server == "sweepserve" else {}
        self._running.halt()

    def engine(self) -> dict[str, Any]:
        """What runs the model, of our own server."""
        return dict(self._engine)

    def phase(self, **options: Any) -> dict[str, Any]:
        """One way of asking: throughput and latency."""
        self._running.go_on()
        found = phase(self._server, self._running, self._request, self._expected[0], **options)
        self._running.halt()
        return found

    def flip(self, flips: int) -> dict[str, Any]:
        """See `flip`."""
        self._running.go_on()
        return flip(self._running.port, self._request, self._expected, flips)


def together(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over rounds, and the throughput of each."""
    medians = ("requests_a_second", "p50_ms", "p99_ms", "processor_ms_a_request")
    return {
        **{key: round(statistics.median(one[key] or 0.0 for one in rounds), 3) for key in medians},
        **{key: sum(one[key] for one in rounds) for key in ("n", "failed")},
        "requests_a_second_by_round": [one["requests_a_second"] for one in rounds],
    }


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
        by_round = "requests_a_second_by_round"
        told["by_round"] = [
            round(mine / its, 2) for mine, its in zip(ours[COMPARED][by_round], others[best][by_round], strict=True)
        ]
        told["p99_ms_ours_and_its"] = [ours[COMPARED]["p99_ms"], others[best]["p99_ms"]]
        told["processor_time_saved_times"] = round(
            min(one["processor_ms_a_request"] for one in others.values()) / ours[COMPARED]["processor_ms_a_request"], 2
        )
    return told


def flip(port: int, request: bytes, expected: Sequence[float], flips: int) -> dict[str, Any]:
    """Changes the champion again and again while 32 clients ask."""

    async def promote(version: int) -> bool:
        body = json.dumps({"version": version}).encode()
        head = f"POST /v1/models/{NAME}/promote HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        connection = await connect(port)
        status, _ = await connection.ask(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        connection.transport.close()
        return bool(status == 200)

    async def run() -> tuple[Outcome, int]:
        await promote(2)  # a first promotion waits for the version's engine; with both there, each takes effect at once
        await asyncio.to_thread(engine, port)
        asking = asyncio.create_task(load(port, request, clients=32, seconds=flips * 0.05, keep=True))
        done = 0
        for number in range(flips):
            done += await promote(1 + number % 2)
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
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 128])
    parser.add_argument("--rounds", type=int, default=3, help="at 32 clients")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--servers", nargs="+", default=list(SERVERS), choices=list(SERVERS))
    parser.add_argument("--flips", type=int, default=100)
    arguments = parser.parse_args()
    began = time.monotonic()
    measured = {name: serve_all(name, arguments) for name in arguments.models}
    content = {"measured": measured, "seconds": arguments.seconds, "took_s": round(time.monotonic() - began)}
    record("inference", content, packages=PACKAGES)


if __name__ == "__main__":
    main()
