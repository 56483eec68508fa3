"""Which commit of the service runs, asked of real git repositories."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from service.adapters.git_commit import commit_of

GIT = shutil.which("git")


@pytest.mark.skipif(GIT is None, reason="needs git")
def test_the_commit_is_that_of_a_checkout_and_not_of_whoever_installed_it_there(tmp_path: Path) -> None:
    """A file that git tracks has the newest commit; one in an environment inside somebody's repository has none."""

    def git(*words: str) -> str:
        command = [GIT or "", "-c", "user.name=Ada", "-c", "user.email=ada@lab.example", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    mine, installed = tmp_path / "service.py", tmp_path / ".venv" / "service.py"
    installed.parent.mkdir()
    for file in (mine, installed):
        file.touch()
    git("init")
    git("add", mine.name)
    assert commit_of(mine) is None
    git("commit", "--message", "first", "--no-gpg-sign")
    assert commit_of(mine) == git("rev-parse", "HEAD")
    assert commit_of(installed) is None
