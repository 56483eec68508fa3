"""What all tests share: the same Hypothesis examples everywhere, and stacks in homes and on ports of their own."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from hypothesis import settings
from sqlalchemy import create_engine, text

from service import processes
from service.adapters.sql_store import SqlStore
from service.programs import ray_folder
from tests.ports import free_port

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=100)
settings.load_profile("repeatable")


class StackRunner:
    """Runs `sweepserve up` and other commands as a user would, on one home; every process of it ends with the test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        api, mlflow, dashboard = free_port(), free_port(), free_port()
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

    def command(
        self, *arguments: str, program: tuple[str, str] = ("-m", "service"), **environment: str
    ) -> subprocess.Popen[str]:
        """A `sweepserve` command, or one of a program that is nearly that; stdout and stderr come together."""
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # nohup's children ignore it, too
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
        return list(self.processes().values())

    def processes(self) -> dict[psutil.Process, str]:
        """The stack's processes that are there, and their command lines."""
        lines = {}
        for process in self._marked():
            with suppress(psutil.Error):  # it has ended meanwhile
                lines[process] = " ".join(process.cmdline())
        return lines

    def clear(self) -> None:
        """Ends everything; what it logged goes to the folder `SWEEPSERVE_KEEP_LOGS`, if there is such a variable."""
        if "SWEEPSERVE_KEEP_LOGS" in os.environ:
            self._keep_logs(Path(os.environ["SWEEPSERVE_KEEP_LOGS"]) / f"{self.home.parent.name}-{os.getpid()}")
        for process in self._started:
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        processes.end(self._marked, grace=0.0)
        shutil.rmtree(ray_folder(self.home), ignore_errors=True)

    def _keep_logs(self, folder: Path) -> None:
        for logs in (self.home / "logs", *ray_folder(self.home).glob("ray/session_*_*/logs")):
            if logs.is_dir():  # a stack that ended by itself has taken Ray's along
                shutil.copytree(logs, folder / logs.parent.name, ignore_dangling_symlinks=True, dirs_exist_ok=True)

    def _marked(self) -> list[psutil.Process]:
        return processes.marked("_SWEEPSERVE_STACK", str(self.home))


class Postgres:
    """A PostgreSQL server of the tests' own, which listens on a free port of loopback and syncs nothing to disk.

    Its programs refuse to run as root; then they run as the account that Debian's package makes. With `durable` a
    commit is on the disk, as anybody's own server would have it.
    """

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        self._programs, self._durable = programs, durable
        self._account = "postgres" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="sweepserve-postgres-"))
        if self._account is not None:
            shutil.chown(self._folder, self._account)
        self._port = free_port()
        self._numbers = itertools.count(1)
        self._migrated = ""
        self._run("initdb", "--pgdata", "data", "--username=tests", "--auth=trust", "--encoding=UTF8", "--no-sync")
        self.start()

    def start(self) -> None:
        """Serves; returns once it does."""
        options = f"-h 127.0.0.1 -p {self._port} -k {self._folder}" + ("" if self._durable else " -F")
        self._run("pg_ctl", "--pgdata", "data", "--wait", "--log", "log", "--options", options, "start")

    def stop(self) -> None:
        """Drops every connection and ends."""
        self._run("pg_ctl", "--pgdata", "data", "--wait", "--mode=immediate", "stop")

    def database(self, template: str = "template1") -> str:
        """The URL of a new database: empty, or a copy of another one."""
        name = f"tests_{next(self._numbers)}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        engine.dispose()
        return self.url(name)

    def migrated(self) -> str:
        """The URL of a new database with the store's tables: a copy of one that is migrated once."""
        if not self._migrated:
            url = self.database()
            with closing(SqlStore(url)) as store:
                store.migrate()
            self._migrated = url.rpartition("/")[2]
        return self.database(self._migrated)

    def url(self, name: str) -> str:
        """Of a database by name."""
        return f"postgresql+psycopg://tests@127.0.0.1:{self._port}/{name}"

    def clear(self) -> None:
        """Ends it and removes all that it kept."""
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            cwd=self._folder,
            user=self._account,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would wait for the server, which inherits it
            stderr=subprocess.DEVNULL,
            check=True,
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for the whole run."""
    programs = postgres_programs()
    if programs is None:
        without_postgres()
    server = Postgres(programs)
    yield server
    server.clear()


def without_postgres() -> NoReturn:
    """Skips the test, or fails it where somebody wants none left out: a variable `NEED_POSTGRES`, as in .ci/run."""
    (pytest.fail if os.environ.get("NEED_POSTGRES") else pytest.skip)("PostgreSQL is not installed")


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs; None where it is not installed."""
    found = [Path(program).resolve().parent for program in [shutil.which("initdb")] if program]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # where Debian keeps them, off the PATH
    return found[0] if found else None


@pytest.fixture(scope="module")
def ray_temp() -> Iterator[str]:
    """A folder for what Ray keeps of a cluster of the tests' own; the paths of its sockets must stay short."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


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
