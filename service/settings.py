"""The service's settings, read once from the environment (`SWEEPSERVE_*`), never at import."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where things are and what the limits are. Each field is the environment variable of its name in capitals."""

    home: Path = field(default_factory=lambda: Path.home() / ".sweepserve")
    """Everything the service keeps: database, checkpoints, data, MLflow's files, logs."""
    database: str = ""
    """SQLAlchemy URL; empty: SQLite under `home`."""
    host: str = "127.0.0.1"
    """Where the API listens."""
    port: int = 8000
    mlflow_host: str = "127.0.0.1"
    """Where the embedded MLflow server listens."""
    mlflow_port: int = 5000
    mlflow_url: str = ""
    """An MLflow server of your own; empty: the embedded one."""
    dashboard_port: int = 8265
    """Of the embedded Ray head: its dashboard and Jobs API, on loopback."""
    ray_url: str = ""
    """The Jobs API of a Ray cluster of your own; empty: the embedded head."""
    url: str = ""
    """Where the client commands find the API; empty: at `host` and `port`."""
    max_body_bytes: int = 32 * 2**20
    """A larger request body is refused."""
    max_image_pixels: int = 64 * 10**6
    """An image of more pixels is refused before it is decoded."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings that the environment gives.

        Raises:
            ValueError: a variable `SWEEPSERVE_*` that is not a setting, or a number that is not one.
        """
        environment = os.environ if environment is None else environment
        kinds = {f"SWEEPSERVE_{field.name.upper()}": field for field in dataclasses.fields(cls)}
        values: dict[str, object] = {}
        for name, text in environment.items():
            if not name.startswith("SWEEPSERVE_"):
                continue
            if name not in kinds:
                raise ValueError(f"{name} is not a setting; known: {', '.join(sorted(kinds))}")
            setting = kinds[name]
            if setting.type == "int":
                if not text.isdigit():
                    raise ValueError(f"{name} needs a whole number, got {text!r}")
                values[setting.name] = int(text)
            else:
                values[setting.name] = Path(text).expanduser().resolve() if setting.type == "Path" else text
        return cls(**values)  # type: ignore[arg-type]

    def to_environment(self) -> dict[str, str]:
        """The variables that give these settings to another process."""
        return {
            f"SWEEPSERVE_{field.name.upper()}": str(getattr(self, field.name)) for field in dataclasses.fields(self)
        }

    @property
    def database_url(self) -> str:
        """The database's URL, SQLite's under `home` by default."""
        return self.database or f"sqlite:///{self.home / 'sweepserve.db'}"

    @property
    def api_url(self) -> str:
        """Where clients on this machine reach the API."""
        return self.url or f"http://{_reachable(self.host)}:{self.port}"

    @property
    def tracking_url(self) -> str:
        """Where MLflow is."""
        return self.mlflow_url or f"http://{_reachable(self.mlflow_host)}:{self.mlflow_port}"

    @property
    def jobs_url(self) -> str:
        """Where Ray's Jobs API is."""
        return self.ray_url or f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def data_root(self) -> Path:
        """Generated and downloaded datasets."""
        return self.home / "data"

    @property
    def sweeps_root(self) -> Path:
        """Checkpoints and pictures, a folder a sweep. On a cluster every node must see it."""
        return self.home / "sweeps"

    @property
    def ray_token_path(self) -> Path:
        """The file with Ray's authentication token."""
        return self.home / "ray" / "token"


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host
