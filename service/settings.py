"""The service's settings, read once from the environment (`SWEEPSERVE_*`), never at import."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.disk import Disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where things are and what the limits are. Each field is the environment variable of its name in capitals."""

    home: Path = field(default_factory=lambda: Path.home() / ".sweepserve")
    """Everything the service keeps: database, checkpoints, data, MLflow's files, logs."""
    database: str = field(default="", repr=False)
    """SQLAlchemy URL; empty: SQLite under `home`."""
    host: str = "127.0.0.1"
    """Where the API listens."""
    port: int = 8000
    """Its port."""
    allowed_hosts: str = ""
    """Names by which requests may ask for the API beside loopback's, with commas; empty: on a network by any name."""
    mlflow_host: str = "127.0.0.1"
    """Where the embedded MLflow server listens."""
    mlflow_port: int = 5000
    """That server's port."""
    mlflow_url: str = ""
    """An MLflow server of your own; empty: the embedded one."""
    mlflow_public_url: str = ""
    """Where people open MLflow's pages, for links to them; empty: where the service itself finds it."""
    dashboard_port: int = 8265
    """Of the embedded Ray head: its dashboard and Jobs API, on loopback."""
    ray_url: str = ""
    """The Jobs API of a Ray cluster of your own; empty: the embedded head."""
    ray_token_file: str = ""
    """The file with that cluster's authentication token; empty: the embedded head's, under `home`."""
    url: str = ""
    """Where the client commands find the API; empty: at `host` and `port`."""
    api_key: str = field(default="", repr=False)
    """What the client commands show to the API; of no use to the service itself, and not handed to its programs."""
    require_keys: bool = False
    """The API asks for keys also on loopback. Beyond loopback it always does."""
    rate_limit: int = 3000
    """Requests a minute by API key, where the key says nothing else."""
    json_logs: bool = False
    """The API and drivers log a JSON object a line, each request among them."""
    serving: str = ""
    """How models are served: a JSON object of settings by model name, `*` for all others (docs/operations.md)."""
    replicas: str = ""
    """Models are run by replicas on the Ray cluster: a JSON object (docs/operations.md); empty: by the API itself."""
    max_running_sweeps: int = 4
    """So many sweeps have a driver at a time; the others wait, by `resources.priority` and then by age."""
    min_free_disk: str = "1GB"
    """Trials begin only while so much is free where checkpoints go, and no dataset is begun that would leave less: an
    amount, or a share such as `2%`; 0: always."""
    max_body_bytes: int = 32 * 2**20
    """A larger request body is refused."""
    max_images: int = 256
    """A prediction is asked about so many images at most."""
    max_image_pixels: int = 64 * 10**6
    """Images that have more pixels together are refused before they are decoded."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment gives; an empty variable is as good as none.

        Raises:
            ValueError: a variable `SWEEPSERVE_*` that is not a setting, or a number that is not one, or no legal port,
                or no amount of disk space.
        """
        environment = os.environ if environment is None else environment
        kinds = {f"SWEEPSERVE_{one.name.upper()}": one for one in dataclasses.fields(cls)}
        values: dict[str, object] = {}
        for name, text in environment.items():
            if not name.startswith("SWEEPSERVE_"):
                continue
            if name not in kinds:
                raise ValueError(f"{name} is not a setting; known: {', '.join(sorted(kinds))}")
            if text:
                values[kinds[name].name] = _read(name, text, str(kinds[name].type))
        return cls(**values)  # type: ignore[arg-type]

    def to_environment(self) -> dict[str, str]:
        """The variables that give these settings, but not the user's API key, to another process."""
        names = [one.name for one in dataclasses.fields(self) if one.name != "api_key"]
        return {f"SWEEPSERVE_{name.upper()}": str(getattr(self, name)) for name in names}

    @property
    def database_url(self) -> str:
        """The database's URL, SQLite's under `home` by default."""
        return self.database or f"sqlite:///{self.home / 'sweepserve.db'}"

    @property
    def keys_required(self) -> bool:
        """Requests need an API key."""
        return self.require_keys or not is_loopback(self.host)

    @property
    def api_url(self) -> str:
        """Where clients on this machine reach the API."""
        return self.url or f"http://{_reachable(self.host)}:{self.port}"

    @property
    def tracking_url(self) -> str:
        """Where MLflow is."""
        return self.mlflow_url or f"http://{_reachable(self.mlflow_host)}:{self.mlflow_port}"

    @property
    def pages_url(self) -> str:
        """Where people find MLflow's pages."""
        return (self.mlflow_public_url or self.tracking_url).rstrip("/")

    @property
    def jobs_url(self) -> str:
        """Where Ray's Jobs API is."""
        return self.ray_url or f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def data_root(self) -> Path:
        """Generated and downloaded datasets."""
        return self.home / "data"

    @property
    def weights_root(self) -> Path:
        """Saved models that trials may start from."""
        return self.home / "weights"

    @property
    def sweeps_root(self) -> Path:
        """Checkpoints, pictures and logs, a folder a sweep. On a cluster every node must see it."""
        return self.home / "sweeps"

    @property
    def disk(self) -> Disk:
        """Of the checkpoints."""
        return Disk(self.sweeps_root, self.min_free_disk)

    @property
    def data_reserve(self) -> int:
        """Bytes that datasets leave free on their disk."""
        return Disk(self.data_root, self.min_free_disk).needed

    def trials(self, sweep_id: str) -> Path:
        """Where a sweep's trials keep their checkpoints, a folder each."""
        return self.sweeps_root / sweep_id / "trials"

    def pictures(self, sweep_id: str) -> Path:
        """Where a sweep's pictures are once it has ended."""
        return self.sweeps_root / sweep_id / "pictures"

    def driver_log(self, sweep_id: str, attempt: int) -> Path:
        """What a sweep's driver printed; drivers of a sweep are numbered 1, 2, ..."""
        return self.sweeps_root / sweep_id / f"driver-{attempt}.log"

    @property
    def ray_token_path(self) -> Path:
        """The file with Ray's authentication token."""
        return Path(self.ray_token_file) if self.ray_token_file else self.home / "ray" / "token"


def is_loopback(host: str) -> bool:
    """Only this machine reaches that name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def _read(name: str, text: str, kind: str) -> object:
    if kind == "Path":
        return Path(text).expanduser().resolve()
    if kind == "bool":
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"{name} needs true or false, got {text!r}")
        return _BOOLEANS[text.lower()]
    if name == "SWEEPSERVE_MIN_FREE_DISK":
        try:
            Disk(Path(), text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if kind != "int":
        return text
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{name} needs a whole number, got {text!r}")
    if name.endswith("_PORT") and not 0 < int(text) < 2**16:
        raise ValueError(f"{name} needs a port from 1 to 65535, got {text}")
    return int(text)


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
