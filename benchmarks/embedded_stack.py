"""What does the embedded stack take: to be ready, to answer a command, to run a first sweep, to end; how much memory?

    python benchmarks/embedded_stack.py

Each round starts `sweepserve up` in an empty home on free ports, lets it idle, weighs all of its processes
(proportional set size, which counts shared pages once, and the sum of resident sets, which counts them each time), runs
the quickstart, and ends it with Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.recorded import ROOT, record
from search_spaces import study
from service.client import Client
from tests.ports import free_port

IDLE_SECONDS = 20.0


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    pid: int
    url: str
    """Of its API."""
    environment: Mapping[str, str]
    """For commands that talk to it."""


@contextmanager
def running_stack(home: Path) -> Iterator[Stack]:
    """`sweepserve up` in a home of its own on free ports, from when it is ready; Ctrl-C ends it."""
    api, mlflow, dashboard = free_port(), free_port(), free_port()
    settings = {"HOME": home, "PORT": api, "MLFLOW_PORT": mlflow, "DASHBOARD_PORT": dashboard}
    environment = os.environ | {f"SWEEPSERVE_{name}": str(value) for name, value in settings.items()}
    said = home / "up.log"  # a pipe that nobody reads would fill in a long sweep
    with said.open("w") as out:
        up = subprocess.Popen([sys.executable, "-m", "service", "up"], env=environment, cwd=ROOT, stdout=out)
    try:
        while "Ctrl-C ends it" not in said.read_text():
            assert up.poll() is None, f"the stack did not start: {said.read_text()}"
            time.sleep(0.02)
        yield Stack(up.pid, f"http://127.0.0.1:{api}", environment)
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(timeout=60)


def run_round() -> dict[str, float]:
    """One stack, from its start to its end."""
    with tempfile.TemporaryDirectory(prefix="stack-") as home:
        began = time.perf_counter()
        with running_stack(Path(home)) as stack:
            ready = time.perf_counter() - began
            time.sleep(IDLE_SECONDS)
            asked = time.perf_counter()
            listing = [sys.executable, "-m", "service", "list"]
            subprocess.run(listing, env=stack.environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            answered = time.perf_counter() - asked
            weights = [process.memory_full_info() for process in _tree(stack.pid)]
            with Client(stack.url) as client:
                submitted = time.perf_counter()
                sweep = client.submit(study("quickstart"))
                for _ in client.watch(sweep["id"]):
                    pass
                swept = time.perf_counter() - submitted
                assert client.sweep(sweep["id"])["state"] == "completed"
            ending = time.perf_counter()
        return {
            "ready_seconds": ready,
            "idle_pss_gib": sum(one.pss for one in weights) / 2**30,
            "idle_rss_gib": sum(one.rss for one in weights) / 2**30,
            "processes": float(len(weights)),
            "list_command_seconds": answered,
            "quickstart_seconds": swept,
            "ending_seconds": time.perf_counter() - ending,
        }


def main() -> None:
    """Runs the rounds and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rounds = [run_round() for _ in range(arguments.rounds)]
    measured = {
        name: {
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "n": len(values),
        }
        for name in rounds[0]
        for values in [[one[name] for one in rounds]]
    }
    content: dict[str, Any] = {
        "question": "the embedded stack's start, idle memory, first sweep and end",
        "measured": measured,
    }
    record("embedded_stack", content, packages=("ray", "mlflow", "torch", "fastapi"))
    print(json.dumps(measured, indent=1))


def _tree(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


if __name__ == "__main__":
    main()
