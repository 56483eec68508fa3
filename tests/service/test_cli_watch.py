"""`sweepserve watch`: in lines, live, and while the API ends and another one takes its place."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from service.adapters.sql_store import SqlStore
from service.cli.watching import follow
from service.domain import Exploit, SweepState

SPEC = "name: digits\nfamily: narrow_resnet\ndata: {name: digits}\nsearch: {trials: 3}\n"


def test_without_a_terminal_a_sweep_is_watched_in_lines(service: Any, run: Any) -> None:
    """What happens, a line each, and the best at the end."""
    sweep = service.running()
    service.store.add_progress(sweep.id, what="making digits", done=10, total=10, at=service.clock.now())
    service.trial(sweep, 0, value=0.5)
    for reason in ("no room", ""):
        service.store.add_wait(sweep.id, reason=reason, at=service.clock.now())
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    status, out, _ = run("watch", sweep.id)
    assert status == 0
    assert out.splitlines() == [
        f"sweep {sweep.id} is queued",
        f"sweep {sweep.id} is running",
        "making digits: 10 of 10",
        "trial 0 starts: learning_rate=0.001",
        "trial 0 step 1: validation/accuracy 0.5",
        "trial 0 completed (1 of 4), validation/accuracy 0.5",
        f"sweep {sweep.id} waits: no room",
        f"sweep {sweep.id} goes on",
        f"sweep {sweep.id} is completed",
        "best: trial 0 with validation/accuracy 0.5",
    ]


def test_who_copied_whom_is_told(service: Any, run: Any) -> None:
    """As it happens, and in the list of trials, whose points are those of now."""
    sweep = service.running()
    one, two = service.trial(sweep, 0), service.trial(sweep, 1)
    exploit = Exploit(
        trial_id=one.id,
        step=4,
        source=two.id,
        before=dict(one.point),
        point={"train.learning_rate": 0.0042},
        checkpoint="/c",
    )
    service.store.add_exploits(sweep.id, [exploit], at=service.clock.now())
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    _, out, _ = run("watch", sweep.id)
    assert "trial 0 step 4: goes on from trial 1 with learning_rate=0.0042" in out.splitlines()
    _, out, _ = run("show", sweep.id)
    (row,) = [line for line in out.splitlines() if line.startswith(one.id)]
    assert "learning_rate=0.0042" in row
    assert f"{two.id} at 4" in row
    _, out, _ = run("show", sweep.id, "--json")
    shown = json.loads(out)["trials"][0]["exploits"]
    assert [(made["step"], made["source"], made["before"]) for made in shown] == [(4, two.id, dict(one.point))]


def test_a_watched_sweep_that_fails_is_a_failure(service: Any, run: Any) -> None:
    """The exit status tells scripts; with --json the events come one a line."""
    sweep = service.running()
    service.store.move_sweep(sweep.id, SweepState.FAILED, at=service.clock.now(), reason="its driver died")
    status, out, _ = run("watch", sweep.id)
    assert (status, out.splitlines()[-1]) == (1, f"sweep {sweep.id} is failed: its driver died")
    status, out, _ = run("watch", sweep.id, "--json")
    assert (status, [json.loads(line)["number"] for line in out.splitlines()]) == (1, [1, 2, 3])


def test_a_submitted_sweep_can_be_followed_at_once(service: Any, run: Any, tmp_path: Path) -> None:
    """`submit --watch` returns when the sweep has ended."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC)

    def drive() -> None:
        while not service.store.sweeps():
            time.sleep(0.01)  # the other side is a real server
        sweep = service.store.sweeps()[0]
        service.store.move_sweep(sweep.id, SweepState.RUNNING, at=service.clock.now())
        service.trial(sweep, 0, value=0.5)
        service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())

    driver = threading.Thread(target=drive)
    driver.start()
    status, out, _ = run("submit", str(path), "--watch")
    driver.join()
    assert (status, out.splitlines()[-1]) == (0, "best: trial 0 with validation/accuracy 0.5")


def test_on_a_terminal_a_sweep_is_watched_live(service: Any) -> None:
    """Bars for the trials and the data, the best so far, and the newest trials; NaN is shown as it is."""
    sweep = service.running()
    service.store.add_progress(sweep.id, what="making digits", done=3, total=10, at=service.clock.now())
    preparing = _live(service, sweep)
    assert "making digits" in preparing
    assert "3/10" in preparing
    for number, value in enumerate([0.5, 0.75, None]):
        service.trial(sweep, number, value=value)
    running = _live(service, sweep)
    assert "making digits" not in running
    assert "running, best 0.75 by trial 1" in running
    assert "2/4" in running
    assert [line.split()[:4] for line in running.splitlines()[-3:]] == [
        ["2", "running", "1", "NaN"],
        ["1", "completed", "1", "0.75"],
        ["0", "completed", "1", "0.5"],
    ]


@pytest.mark.parametrize("state", ["starting", "running"])
def test_on_a_terminal_a_sweep_says_why_it_waits(service: Any, state: str) -> None:
    """A driver that has not begun may have a reason too; an empty one ends it."""
    sweep = service.sweep()
    service.store.move_sweep(sweep.id, SweepState(state), at=service.clock.now())
    service.store.add_wait(sweep.id, reason="the database is of an earlier version", at=service.clock.now())
    assert f"{state} (the database is of an earlier version), no trial" in _live(service, sweep)
    service.store.add_wait(sweep.id, reason="", at=service.clock.now())
    assert f"{state}, no trial" in _live(service, sweep)


@pytest.mark.parametrize("moves", [("pausing", "paused", "queued", "starting"), ("failed", "queued", "starting")])
def test_on_a_terminal_a_wait_ends_with_the_next_move(service: Any, moves: tuple[str, ...]) -> None:
    """Whoever resumes or retries the sweep is not told what it waited for before."""
    sweep = service.running()
    service.store.add_wait(sweep.id, reason="no room", at=service.clock.now())
    for state in moves:
        service.store.move_sweep(sweep.id, SweepState(state), at=service.clock.now())
    assert "starting, no trial" in _live(service, sweep)


def test_on_a_terminal_an_extension_does_not_make_a_wait_last(service: Any) -> None:
    """The sweep waits on, and then goes on."""
    sweep = service.running()
    service.store.add_wait(sweep.id, reason="no room", at=service.clock.now())
    spec = {**sweep.spec, "search": {**sweep.spec["search"], "trials": 9}}
    service.store.change_spec(sweep.id, spec, seen=sweep, at=service.clock.now())
    waiting = _live(service, sweep)
    assert "running (no room), no trial" in waiting
    assert "0/9" in waiting
    service.store.add_wait(sweep.id, reason="", at=service.clock.now())
    assert "running, no trial" in _live(service, sweep)


def _live(service: Any, sweep: Any) -> str:
    """The last picture of the live display."""
    shown = service.http.get(f"/v1/sweeps/{sweep.id}").json()
    events = service.http.get(f"/v1/sweeps/{sweep.id}/events").json()["events"]
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40, color_system=None, record=True)
    follow(shown, events, console)
    picture = console.export_text()
    return "\n".join(
        line.rstrip()
        for line in picture[picture.rindex(f"{shown['name']} {shown['id']}") :].splitlines()
        if line.strip()
    )


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
            "trial 0 step 1",
            "trial 0 completed (1 of 4), validation/accuracy 0.5",
            "trial 1 starts",
            "trial 1 step 1",
            "trial 1 completed (2 of 4), validation/accuracy 0.75",
            f"sweep {sweep.id} is completed",
            "best",
        ]
