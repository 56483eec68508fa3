"""Which commit of the service runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def commit_of(file: Path) -> str | None:
    """The commit of the checkout in which git tracks this file; None: it was installed, maybe within one."""
    git = shutil.which("git")
    if git is None:
        return None

    def said(*words: str) -> str:
        return subprocess.run(
            [git, *words], cwd=file.parent, capture_output=True, text=True, check=False
        ).stdout.strip()

    return (said("ls-files", file.name) and said("rev-parse", "--verify", "HEAD")) or None
