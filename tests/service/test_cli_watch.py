"""`sweepserve watch` while the API ends and another one takes its place."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.adapters.sql_store import SqlStore
from service.domain import SweepState


@contextmanager
def watching(url: str, sweep_id: str, folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process of its own, what it prints in files."""
    command = [sys.executable, "-m", "service", "watch", sweep_id, "--url", url, *options]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, "SWEEPSERVE_HOME": str(folder)})
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def until(happened: Callable[[], bool]) -> None:
    """Waits for another process."""
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end, "it did not happen within half a minute"
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_sweep_is_watched_through_a_restart_of_the_api(
    make_service: Callable[..., Any], serving: Callable[..., Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The API really ends and another starts: each event comes once, and stderr says what goes on."""
    out, err = tmp_path / "out", tmp_path / "err"
    with closing(SqlStore(f"sqlite:///{tmp_path}/store.db")) as store, ExitStack() as watched:
        store.migrate()
        service = make_service(store)
        sweep = service.running()
        with serving(service.app) as url:
            port = int(url.rpartition(":")[2])
            process = watched.enter_context(watching(url, sweep.id, tmp_path, *options))
            service.trial(sweep, 0, value=0.5)
            until(lambda: "completed" in out.read_text())
        assert not answers(port)
        until(lambda: "trying again" in err.read_text())
        service.trial(sweep, 1, value=0.75)
        with serving(make_service(store).app, port):
            until(lambda: "answers again" in err.read_text())
            store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
            assert process.wait(30) == 0
    lost, found = err.read_text().splitlines()
    assert lost.startswith(f"sweepserve: {url} does not answer")
    assert lost.endswith("; trying again for 5 minutes")
    assert found == f"sweepserve: {url} answers again"
    lines = out.read_text().splitlines()
    if options:
        assert [json.loads(line)["number"] for line in lines] == list(range(1, 10))
    else:
        assert [line.split(":")[0] for line in lines] == [
            f"sweep {sweep.id} is queued",
            f"sweep {sweep.id} is running",
            "trial 0 starts",
            "trial 0 epoch 1",
            "trial 0 completed (1 of 4), validation/accuracy 0.5",
            "trial 1 starts",
            "trial 1 epoch 1",
            "trial 1 completed (2 of 4), validation/accuracy 0.75",
            f"sweep {sweep.id} is completed",
            "best",
        ]
