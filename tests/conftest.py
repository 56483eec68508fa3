"""What all tests share: the same Hypothesis examples everywhere, and stacks in homes and on ports of their own."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from service import processes
from service.programs import ray_folder

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=100)
settings.load_profile("repeatable")


class StackRunner:
    """Runs `sweepserve up` and other commands as a user would, on one home; every process of it ends with the test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        api, mlflow, dashboard = _free_ports(3)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEEPSERVE_")}
        self.environment: Mapping[str, str] = {
            **kept,
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "SWEEPSERVE_HOME": str(home),
            "SWEEPSERVE_PORT": str(api),
            "SWEEPSERVE_MLFLOW_PORT": str(mlflow),
            "SWEEPSERVE_DASHBOARD_PORT": str(dashboard),
        }
        self.url = f"http://127.0.0.1:{api}"
        self.mlflow_url = f"http://127.0.0.1:{mlflow}"
        self._started: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A `sweepserve` command, started; stdout and stderr come together."""
        process = subprocess.Popen(
            [sys.executable, "-m", "service", *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._started.append(process)
        return process

    def read_until(self, process: subprocess.Popen[str], pattern: str, *, within: float = 120.0) -> str:
        """What it prints up to a line with this pattern; fails when it ends first, and ends it when it takes longer."""
        lines: list[str] = []
        watchdog = threading.Timer(within, process.kill)
        watchdog.start()
        try:
            for line in process.stdout or ():
                lines.append(line)
                if re.search(pattern, line):
                    return "".join(lines)
        finally:
            watchdog.cancel()
        pytest.fail(f"ended with {process.wait()} before {pattern!r}:\n{''.join(lines)}")

    def left(self) -> list[str]:
        """Command lines of the stack's processes that are there."""
        return [" ".join(process.cmdline()) for process in self._marked()]

    def clear(self) -> None:
        """Ends everything."""
        for process in self._started:
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        processes.end(self._marked, grace=0.0)
        shutil.rmtree(ray_folder(self.home), ignore_errors=True)

    def _marked(self) -> list[psutil.Process]:
        return processes.marked("_SWEEPSERVE_STACK", str(self.home))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[StackRunner]:
    """Stacks on a home of this test's own."""
    made = StackRunner(tmp_path / "home")
    yield made
    made.clear()


@pytest.fixture(scope="module")
def shared_runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackRunner]:
    """Stacks on a home of this file's own."""
    made = StackRunner(tmp_path_factory.mktemp("stack") / "home")
    yield made
    made.clear()
