"""A server as a process group of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
from serving import load

ROOT = Path(__file__).parents[2]
START_LIMIT = 120.0


class Server:
    """One of `servers.SERVERS`, started."""

    def __init__(self, server: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._log = folder / f"{server}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.servers", server, str(folder), str(self.port)],
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"},
                start_new_session=True, stdout=log, stderr=log,
            )  # fmt: skip

    def wait(self, request: bytes) -> bytes:
        """Until it answers the request; with what.

        Raises:
            TimeoutError: it does not, or ended.
        """
        deadline, said = time.monotonic() + START_LIMIT, ""
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                outcome = load.measure(self.port, request, clients=1, seconds=0.0)
                said = "; ".join(outcome.failures[:1])
                if outcome.bodies and not outcome.failures:
                    return outcome.bodies[0]
            except OSError as error:
                said = repr(error)
            time.sleep(0.5)
        log = self._log.read_text(errors="replace").splitlines()[-5:]
        raise TimeoutError(f"it does not answer: {said}; its log ends with {log}")

    def processor_seconds(self) -> float:
        """What all of its processes have used so far."""
        top = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (top, *top.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def halt(self) -> None:
        """Takes the processor from all of it, which another server is to have for itself."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Gives it back."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Ends all of it, halted or not."""
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                if number != signal.SIGCONT:
                    self._process.wait(10)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                continue
