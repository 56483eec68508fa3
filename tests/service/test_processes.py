"""Ending processes: none escapes, whatever it does."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from service import processes

# Its child, a shell, leaves a stubborn daemon behind: another session, soon another parent, deaf to SIGTERM.
SUPERVISOR = """
import os, sys, time
from functools import partial
from pathlib import Path
from service import processes

processes.adopt_orphans()
daemon = "trap '' TERM; echo $$ > daemon.pid; while :; do sleep 0.1; done"
child = processes.spawn(
    ["sh", "-c", f'setsid sh -c "$0" & exec sleep 1000', daemon],
    environment={**os.environ, "MARK": sys.argv[1]},
    log=Path("log"),
)
while not Path("daemon.pid").exists() or not Path("daemon.pid").read_text():
    time.sleep(0.01)
print(child.pid, Path("daemon.pid").read_text().strip(), flush=True)
if sys.stdin.readline():
    child.kill()
    while processes.tree(child.pid):
        processes.reap({child.pid: child})
        time.sleep(0.01)
    processes.end(lambda: processes.tree(os.getpid())[1:], grace=0.2)
"""


@pytest.fixture
def supervisor(tmp_path: Path):
    """The supervisor, its child and the daemon."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child, daemon = (psutil.Process(int(pid)) for pid in process.stdout.readline().split())
    yield process, child, daemon
    process.kill()
    process.communicate()
    for one in (child, daemon):
        with suppress(psutil.NoSuchProcess):
            one.kill()


def ends(process: psutil.Process, *, within: float = 5.0) -> bool:
    """Whether it has ended after so many seconds at most; a zombie has."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return True
    return False


def test_a_daemon_in_another_session_is_found_and_killed(supervisor) -> None:
    """What left its parent and its session, and ignores SIGTERM, still ends with the supervisor."""
    process, child, daemon = supervisor
    assert os.getsid(child.pid) == child.pid
    assert os.getsid(daemon.pid) != os.getsid(child.pid)
    process.communicate("end\n", timeout=10)
    assert process.returncode == 0
    assert not child.is_running()
    assert not daemon.is_running()


def test_a_killed_supervisors_child_is_asked_to_end(supervisor) -> None:
    """SIGKILL of the supervisor, which it cannot see, reaches its child as SIGTERM; the mark finds all the rest."""
    process, child, daemon = supervisor
    mark = process.args[-1]
    assert {child, daemon} <= set(processes.marked("MARK", mark))
    process.kill()
    assert ends(child)
    assert not ends(daemon, within=0.2)
    processes.end(lambda: processes.marked("MARK", mark), grace=0.1)
    assert ends(daemon)
    assert processes.marked("MARK", mark) == []


def test_a_name_tells_whether_its_process_is_dead() -> None:
    """A zombie is; who has its process id later is another one; and nobody knows of other machines."""
    ours = processes.name_of_this()
    kernel, pid, _ = ours.split(":")
    said = [sys.executable, "-c", "from service.processes import name_of_this; print(name_of_this(), flush=True)"]
    with subprocess.Popen(said, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        theirs = child.stdout.readline().strip()
        assert ends(psutil.Process(child.pid))
        assert child.returncode is None, "it is a zombie"
        assert processes.is_dead(theirs)
    assert processes.is_dead(theirs)
    assert not processes.is_dead(ours)
    assert not processes.is_dead(f"{ours}:part")
    assert processes.is_dead(f"{kernel}:{pid}:0")
    assert not processes.is_dead(f"elsewhere:{pid}:0")
    assert not processes.is_dead("1b5f9f7f0f3a4d21"), "of an earlier version of the service"


BREEDER = """
import subprocess
while True:
    subprocess.Popen(["true"]).wait()
"""


def test_what_is_born_below_a_living_program_is_no_orphan() -> None:
    """However often one looks while it starts others; what is beside it is one, with all below that."""
    living = subprocess.Popen([sys.executable, "-c", BREEDER])
    other = subprocess.Popen(["/bin/sh", "-c", "sleep 1000 & wait"])
    try:
        born = set()
        while len(born) < 20:
            born |= {one.pid for one in processes.tree(living.pid)[1:]}
            left = {one.pid for one in processes.orphans([living.pid, os.getpid()])}
            assert not left & (born | {living.pid})
        below = {one.pid for one in processes.tree(other.pid)}
        assert below <= {one.pid for one in processes.orphans([living.pid])}
        assert not below & {one.pid for one in processes.orphans([living.pid, other.pid])}
    finally:
        for process in (living, other):
            processes.end(lambda pid=process.pid: processes.tree(pid), grace=0.0)
            process.wait()
