"""A database's password in its URL: in no complaint about the database."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings
from tests.ports import free_port

SECRET = "swordfish-4711"


@pytest.mark.parametrize(
    ("command", "url", "complaint"),
    [
        (["api"], "postgresql+psycopg://ada:{secret}@127.0.0.1:{port}/sweeps", "the database does not answer"),
        (["keys", "list"], "postgresql+psycopg://ada:{secret}@127.0.0.1:{port}/sweeps", "the database does not answer"),
        (["keys", "list"], "postgresql+nonsense://ada:{secret}@127.0.0.1:{port}/sweeps", ""),
        (["keys", "list"], "postgresql://ada:{secret}@127.0.0.1:{port}:x/sweeps", ""),
        (["keys", "list"], "sqlite://ada:{secret}@/sweeps", ""),
    ],
)
def test_a_password_in_a_url_is_in_no_complaint(tmp_path: Path, command: list[str], url: str, complaint: str) -> None:
    """Whether the database is away, its driver is not installed, or the URL is none."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: whoever connects is refused
        port = closed.getsockname()[1]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SWEEPSERVE_")},
            "SWEEPSERVE_HOME": str(tmp_path),
            "SWEEPSERVE_PORT": str(free_port()),
            "SWEEPSERVE_DATABASE": url.format(secret=SECRET, port=port),
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        done = subprocess.run(
            [sys.executable, "-m", "service", *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert complaint in said
    assert SECRET not in said
    assert not any(SECRET in file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())


def test_settings_show_no_secret() -> None:
    """Neither where they are printed, nor the user's key to the programs that they start."""
    settings = Settings(api_key=SECRET, database=f"postgresql+psycopg://ada:{SECRET}@host/sweeps")
    assert SECRET not in repr(settings)
    assert [name for name, value in settings.to_environment().items() if SECRET in value] == ["SWEEPSERVE_DATABASE"]
