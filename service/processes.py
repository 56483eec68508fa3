"""Processes that end with us: children in sessions of their own, and every descendant findable and ended by its id.

And names of processes by which another one on the same machine can tell that they are dead.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
_PASSES = 3  # so often `end` looks
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


def adopt_orphans() -> None:
    """From now on a descendant whose parent dies becomes our child, so that none can leave our tree.

    Raises:
        OSError: the kernel refuses.
    """
    if _PRCTL(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper")


def spawn(command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A child that a terminal's Ctrl-C does not reach, and that the kernel asks to end (SIGTERM) should we be killed.

    Call it from a thread that lives as long as the child may: the kernel's promise is tied to the thread.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # One system call between fork and exec; the symbol was looked up before.
            preexec_fn=partial(_PRCTL, _SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        )


def name_of_this() -> str:
    """A name that no other process of any machine ever has, and that `is_dead` understands."""
    return f"{_kernel()}:{os.getpid()}:{_started(os.getpid())}"


def is_dead(name: str) -> bool:
    """The process of that name has ended; False also where nobody here can tell, as of one on another machine.

    More may follow the name after a colon, as where a process has several parts.
    """
    kernel, pid, started, *_ = [*name.split(":"), "", ""]
    return bool(started) and kernel == _kernel() and _started(int(pid)) != started


def _kernel() -> str:
    """This run of the kernel, and the space that our process ids are of: a container has its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:18].replace("-", "")
    return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """When a process started, in ticks since the kernel did, which no clock moves; empty where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state in "ZX" else fields[18]


def tree(pid: int) -> list[psutil.Process]:
    """This process and its descendants; none where it is gone."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def orphans(ours: Collection[int]) -> list[psutil.Process]:
    """What programs that are no more have left to us: our children beside `ours` (process ids), with all below them.

    What is born below one of ours while we look is never among them.
    """
    left = [child for child in psutil.Process().children() if child.pid not in ours]
    return [process for child in left for process in tree(child.pid)]


def reap(ours: Mapping[int, subprocess.Popen[bytes]]) -> None:
    """Buries dead children: adopted ones here, `ours` (by process id) through their own objects."""
    with suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if dead.si_pid in ours:
                ours[dead.si_pid].poll()
            else:
                os.waitpid(dead.si_pid, 0)


def marked(name: str, value: str) -> list[psutil.Process]:
    """Living processes started with this environment variable, with all that share their sessions.

    The sessions matter because a program that rewrites its title (Ray's do) also wipes its environment from view.
    """
    sessions: dict[psutil.Process, int] = {}
    wanted = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE:
                sessions[process] = os.getsid(process.pid)
                if process.environ().get(name) == value:
                    wanted.add(sessions[process])
    return [process for process, session in sessions.items() if session in wanted]


def end(find: Callable[[], list[psutil.Process]], *, grace: float) -> None:
    """Asks what `find` gives to end, and kills what is left after `grace` seconds.

    Looks more than once, because what is being ended may still have started another.
    """
    for _ in range(_PASSES):
        waiting = find()
        for send, patience in ((psutil.Process.terminate, grace), (psutil.Process.kill, 5.0)):
            for process in waiting:
                with suppress(psutil.Error):
                    send(process)
            _, waiting = psutil.wait_procs(waiting, timeout=patience)
        grace = 0.0
