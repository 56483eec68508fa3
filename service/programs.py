"""The programs of the embedded stack: how each is started, and how one sees that it serves."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from service.replicas_config import replicas_config
from service.settings import Settings

_OBJECT_STORE = 200 * 2**20  # bytes; trials exchange paths and numbers, not arrays
_RAY_PATIENCE = 30.0  # seconds; its trials go on from their checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program: its command line, its environment beside the settings, and how one sees that it serves."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    serves: Callable[[httpx.Client], bool]
    """It answers."""
    patience: float = math.inf
    """Seconds without an answer after which it is started again, though it lives."""
    grace: float
    """Seconds between asking it to end and killing it."""
    served: Path | None = None
    """A file that stands where the program has served before; made once it does."""


def programs(settings: Settings) -> list[Program]:
    """What these settings embed, in the order in which it ends: who asks goes before who answers."""
    chosen = [_api(settings)]
    if not settings.ray_url:
        chosen.append(_ray(settings))
    if not settings.mlflow_url:
        chosen.append(_mlflow(settings))
    return chosen


def ports(settings: Settings) -> list[tuple[str, int, str]]:
    """Where these programs will listen: host, port, and the variable that sets the port.

    Raises:
        ValueError: the replicas' settings are none.
    """
    chosen = [(settings.host, settings.port, "SWEEPSERVE_PORT")]
    if not settings.ray_url:
        chosen.append(("127.0.0.1", settings.dashboard_port, "SWEEPSERVE_DASHBOARD_PORT"))
        if replicas := replicas_config(settings.replicas):
            chosen.append(("127.0.0.1", replicas.port, "the url in SWEEPSERVE_REPLICAS"))
    if not settings.mlflow_url:
        chosen.append((settings.mlflow_host, settings.mlflow_port, "SWEEPSERVE_MLFLOW_PORT"))
    return chosen


def _api(settings: Settings) -> Program:
    here = dataclasses.replace(settings, url="")  # clients may come by another way, through a proxy
    return Program(
        name="API",
        command=(sys.executable, "-m", "service", "api"),
        serves=partial(_answers, f"{here.api_url}/healthz"),
        grace=3.0,
    )


def _ray(settings: Settings) -> Program:
    folder = _emptied(ray_folder(settings.home))
    options = {
        "temp-dir": folder / "ray",  # Ray opens this one to everybody
        "object-store-memory": _OBJECT_STORE,
        "include-dashboard": "true",  # or it would start without one where the port is taken
        "dashboard-host": "127.0.0.1",
        "dashboard-port": settings.dashboard_port,
        # Every other port is whichever is free, so that several stacks share a machine.
        "port": 0,
        "dashboard-agent-listen-port": 0,
        "dashboard-agent-grpc-port": 0,
        "runtime-env-agent-port": 0,
        "metrics-export-port": 0,
        "min-worker-port": 0,
        "max-worker-port": 0,
        "ray-client-server-port": _free_port(),
    }
    return Program(
        name="Ray",
        command=(
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--{name}={value}" for name, value in options.items()),
        ),
        environment={
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(settings.ray_token_path),
            # Its GCS keeps everything in memory: once that is dead, nothing is won by the 60 s that Ray waits for it.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
            # Instead of 900: a job whose worker does not come fails then, and its sweep gets another.
            "RAY_JOB_START_TIMEOUT_SECONDS": "120",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all ports on loopback, as Ray does by itself on those systems
            "TMPDIR": str(folder),
        },
        serves=partial(_starts_jobs, settings.jobs_url, _token(settings.ray_token_path), folder / "ray"),
        patience=_RAY_PATIENCE,
        grace=2.0,
    )


def _mlflow(settings: Settings) -> Program:
    folder = settings.home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    served = folder / "served"
    if not served.exists():
        # MLflow cannot go on where the making of its tables was interrupted; nothing else is in them yet.
        for file in folder.glob("mlflow.db*"):
            file.unlink()
    options = {
        "host": settings.mlflow_host,
        "port": settings.mlflow_port,
        "workers": 1,
        "backend-store-uri": f"sqlite:///{folder / 'mlflow.db'}",
        "artifacts-destination": folder / "artifacts",
        "uvicorn-opts": "--log-level warning",
    }
    return Program(
        name="MLflow",
        command=(sys.executable, "-m", "mlflow", "server", *(f"--{name}={value}" for name, value in options.items())),
        # Job runners are for features of MLflow that sweeps do not use, and take 230 MB each.
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        serves=partial(_answers, f"{settings.tracking_url}/health"),
        grace=2.0,
        served=served,
    )


def _answers(
    url: str, client: httpx.Client, *, status: int = httpx.codes.OK, headers: Mapping[str, str] | None = None
) -> bool:
    try:
        return client.get(url, headers=headers).status_code == status
    except (httpx.TransportError, httpx.InvalidURL):
        return False


def _starts_jobs(dashboard: str, token: str, folder: Path, client: httpx.Client) -> bool:
    """The dashboard of a Ray head knows its jobs, and there is an agent, with a raylet, that starts them.

    Both are asked: the head lives on, and its dashboard answers, where agent or raylet have ended or hang.
    """
    # About a job that there is not, since a list would be of all that there ever were.
    nowhere, headers = f"{dashboard}/api/jobs/none", {"Authorization": f"Bearer {token}"}
    try:
        ports = [file.read_text() for file in (folder / "session_latest").glob("dashboard_agent_listen_port*")]
    except OSError:  # the head is about to start anew
        return False
    return _answers(nowhere, client, status=httpx.codes.NOT_FOUND, headers=headers) and any(
        _answers(f"http://127.0.0.1:{port}/api/local_raylet_healthz", client) for port in ports
    )


def past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which programs find each other on this machine, whatever proxy the environment names."""
    exceptions = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if exceptions != "*":
        exceptions = ",".join(filter(None, (exceptions, "127.0.0.1", "localhost", "::1")))
    return dict.fromkeys(("no_proxy", "NO_PROXY"), exceptions)


def ray_folder(home: Path) -> Path:
    """Ray's sessions. A short path, because the names of its sockets may have no more than 107 characters."""
    return Path("/tmp") / f"sweepserve-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}"  # noqa: S108


def _emptied(folder: Path) -> Path:
    """The folder without what an earlier session left, and for us alone.

    Raises:
        FileExistsError: somebody else's is there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _token(path: Path) -> str:
    """Ray's token; made on first use, for our eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(secrets.token_hex(32))
    return path.read_text()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
