"""The embedded stack: the API, a Ray head and an MLflow server as children of one foreground process.

Whatever ends that process, nothing of the stack stays: it adopts every descendant and ends them by their ids; and
should it be killed itself, the kernel asks its children to end and the next `up` on the same home ends what is left.
The children keep nothing that outlives them but files under `home`, so ending them may be quick.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from rich.console import Console

from service import processes
from service.programs import Program, past_proxies, ports, programs, ray_folder
from service.pulse import Pulse
from service.settings import Settings

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_START_LIMIT = 120.0  # seconds; it takes about ten on two idle cores, but a machine may be busy
_ANSWER_LIMIT = 5.0  # seconds; a machine may be busy
_STEADY = 60.0  # seconds; a program that ran for so long had started well
_MARK = "_SWEEPSERVE_STACK"  # in the environment of every process of a stack: the home it works for
_NOT_FOR_PROGRAMS = frozenset({"RAY_ADDRESS", "SWEEPSERVE_API_KEY"})  # another cluster; the user's own key


class CannotStart(Exception):  # noqa: N818 - it says what is the matter
    """The stack does not start; the message says why, and what to do."""


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    pulse: Pulse
    failures: int = 0
    restart_at: float | None = None


class Stack:
    """The running stack, as a context: serving inside, wholly ended after.

    Enter and serve it on the main thread of a process that has no other children: whatever is below that process
    ends with the stack.

    Args:
        settings: where everything is.
        say: told a line at a time what happens.

    Raises:
        CannotStart: on entering; nothing of it is left then.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._children: list[_Child] = []
        self._resources = ExitStack()
        self._http = self._resources.enter_context(httpx.Client(timeout=_ANSWER_LIMIT, trust_env=False))

    def __enter__(self) -> Self:
        try:
            self._start()
        except OSError as error:
            self._end()
            raise CannotStart(f"{error}; everything is kept in {self._settings.home} (SWEEPSERVE_HOME)") from error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        shutil.rmtree(
            ray_folder(self._settings.home), ignore_errors=True
        )  # a start that failed leaves it, with its logs

    def serve(self) -> None:
        """Starts again what ends by itself; returns only by an exception, such as the KeyboardInterrupt of Ctrl-C."""
        while True:
            self._tend(time.monotonic())
            time.sleep(0.5)

    def _start(self) -> None:
        home, began = self._settings.home, time.monotonic()
        self._logs.mkdir(parents=True, exist_ok=True)
        self._resources.enter_context(_alone(home, self._settings.api_url))
        if left := processes.marked(_MARK, str(home)):
            self._say(f"ending {len(left)} processes of a stack that was killed")
            processes.end(partial(processes.marked, _MARK, str(home)), grace=1.0)
        _check_ports(self._settings)
        processes.adopt_orphans()
        wanted = programs(self._settings)
        self._say(f"starting {', '.join(program.name for program in wanted)}; everything is kept in {home}")
        for program in wanted:
            with suppress(FileNotFoundError):
                self._log(program).replace(self._log(program).with_suffix(".log.1"))
            process, now = self._spawn(program), time.monotonic()
            self._children.append(_Child(program, process, now, _pulse(program, now)))
        self._await(began)

    def _spawn(self, program: Program) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_PROGRAMS}
        environment.update(past_proxies(environment), **self._settings.to_environment(), **program.environment)
        environment[_MARK] = str(self._settings.home)
        environment["PYTHONSAFEPATH"] = "1"  # a module of ours is never a file of that name in the user's folder
        return processes.spawn(program.command, environment=environment, log=self._log(program))

    @property
    def _logs(self) -> Path:
        return self._settings.home / "logs"

    def _log(self, program: Program) -> Path:
        return self._logs / f"{program.name.lower()}.log"

    def _await(self, began: float) -> None:
        waiting = list(self._children)
        while waiting:
            for child in list(waiting):
                if child.process.poll() is not None:
                    raise CannotStart(self._post_mortem(child))
                if child.program.serves(self._http):
                    waiting.remove(child)
                    child.pulse.heard()
                    if child.program.served is not None:
                        child.program.served.touch()
                    self._say(f"  {child.program.name} serves after {time.monotonic() - began:.1f} s")
            if waiting and time.monotonic() - began > _START_LIMIT:
                names = ", ".join(child.program.name for child in waiting)
                raise CannotStart(f"{names} did not answer within {_START_LIMIT:g} s; see {self._logs}")
            time.sleep(0.1)

    def _post_mortem(self, child: _Child) -> str:
        log = self._log(child.program)
        last = "".join(f"\n    {line}" for line in log.read_text(errors="replace").splitlines()[-10:])
        return f"{child.program.name} ended at its start (status {child.process.returncode}); {log} ends with{last}"

    def _tend(self, now: float) -> None:
        processes.reap({child.process.pid: child.process for child in self._children})
        for child in self._children:
            if child.restart_at is not None and now >= child.restart_at:
                self._end_strays()
                child.process, child.started, child.restart_at = self._spawn(child.program), now, None
                child.pulse = _pulse(child.program, now)
            elif child.restart_at is None and child.process.poll() is None:
                if child.pulse.lost(now, self._http):
                    self._say(f"{child.program.name} lives, but does not answer any more; ending it")
                    processes.end(partial(processes.tree, child.process.pid), grace=child.program.grace)
            elif child.restart_at is None:
                child.failures = 1 if now - child.started > _STEADY else child.failures + 1
                delay = min(2.0 ** (child.failures - 2), 30.0) if child.failures > 1 else 0.0
                child.restart_at = now + delay
                again = f"in {delay:g} s" if delay else "at once"
                self._say(f"{child.program.name} ended (status {child.process.returncode}); it starts again {again}")

    def _end_strays(self) -> None:
        """Ends what programs that are no more have left behind; it may hold their ports."""
        ours = {child.process.pid for child in self._children if child.process.poll() is None}
        processes.end(partial(processes.orphans, ours), grace=1.0)

    def _end(self) -> None:
        # It is a matter of seconds from here on, and must not be left half done.
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
        if self._children:
            self._say("ending the stack")
        for child in self._children:
            processes.end(partial(processes.tree, child.process.pid), grace=child.program.grace)
            child.process.poll()
        processes.end(lambda: processes.tree(os.getpid())[1:], grace=0.5)
        self._resources.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _pulse(program: Program, started: float) -> Pulse:
    return Pulse(program, started=started, start_limit=_START_LIMIT)


@contextmanager
def _alone(home: Path, address: str) -> Iterator[None]:
    """Holds the home's lock, with our address in it for whoever comes second."""
    with (home / "stack.json").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            text = file.read()
            holder = json.loads(text) if text else {"api": "a stack that is just starting", "pid": "unknown"}
            raise CannotStart(f"{home} is in use by {holder['api']} (process {holder['pid']})") from None
        file.truncate(0)
        json.dump({"api": address, "pid": os.getpid()}, file)
        file.flush()
        yield
        file.truncate(0)


def _check_ports(settings: Settings) -> None:
    try:
        wanted = ports(settings)
    except ValueError as error:
        raise CannotStart(str(error)) from None
    with ExitStack() as held:
        for host, port, variable in wanted:
            try:
                held.enter_context(socket.create_server((host, port)))
            except OSError as error:
                reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
                raise CannotStart(f"port {port} of {host}: {reason}; set {variable} to a free one") from None


def addresses(settings: Settings) -> dict[str, str]:
    """The pages to open, by what they are."""
    return {
        "API docs": f"{settings.api_url}/docs",
        "MLflow page": settings.pages_url,
        "Ray dashboard": settings.jobs_url,
    }


def sayer(console: Console) -> Callable[[str], None]:
    """Prints lines as they are; a terminal that is gone does not keep a stack from ending."""

    def say(line: str) -> None:
        with suppress(OSError, SystemExit):  # Rich would exit where nobody reads a pipe
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return say


def end_on_signals() -> None:
    """From now on SIGTERM and SIGHUP (unless ignored, as under nohup) raise KeyboardInterrupt, as Ctrl-C does."""
    for number in _ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def up(settings: Settings) -> int:
    """Runs the stack until Ctrl-C, SIGTERM or SIGHUP; gives the exit status."""
    end_on_signals()
    say, complain = sayer(Console()), sayer(Console(stderr=True))
    began = time.monotonic()
    try:
        with Stack(settings, say) as stack:
            say(f"ready after {time.monotonic() - began:.1f} s")
            for name, address in addresses(settings).items():
                say(f"  {name:<14} {address}")
            say("Ctrl-C ends it")
            stack.serve()
    except KeyboardInterrupt:
        say("ended")
    except CannotStart as error:
        complain(f"sweepserve: {error}")
        return 1
    return 0
