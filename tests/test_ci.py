"""`.ci/run`: nothing that it should try is left out unseen."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import without_postgres

ROOT = Path(__file__).parent.parent


def test_ci_insists_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it sets, tests that need PostgreSQL fail where it is not installed; without, they are skipped."""
    for program in ("make", "initdb"):  # the latter, so that nothing is installed
        (tmp_path / program).write_text("#!/bin/sh\necho $NEED_POSTGRES\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.delenv("NEED_POSTGRES", raising=False)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / ".ci" / "run"], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert outcome() is pytest.skip.Exception
    monkeypatch.setenv("NEED_POSTGRES", done.stdout.strip())
    assert outcome() is pytest.fail.Exception


def outcome() -> type[BaseException]:
    """What becomes of a test that needs PostgreSQL where there is none."""
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception)) as raised:
        without_postgres()
    return raised.type
