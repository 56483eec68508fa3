"""The sweep's log as a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import logging, sys
from pathlib import Path
from service.driver.log import keep_log
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="at noon %(message)s")
keep_log(Path(sys.argv[1]))
logging.info("logged")
print("printed")
raise RuntimeError("raised")
"""


def _run(path: Path) -> str:
    command = [sys.executable, "-c", PROGRAM, str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, text=True, check=False, timeout=60, **pipes).stdout  # type: ignore[call-overload, no-any-return]


def test_the_file_has_what_was_logged_printed_and_raised(tmp_path: Path) -> None:
    """In order, as on the stream; a second driver's words follow the first one's."""
    path = tmp_path / "sweep" / "driver-1.log"
    said = _run(path)
    kept = path.read_text()
    assert kept.startswith("at noon logged\nprinted\nTraceback")
    assert kept.endswith("RuntimeError: raised\n")
    assert sorted(said.splitlines()) == sorted(kept.splitlines())
    _run(path)
    assert path.read_text() == kept * 2


def test_a_file_that_cannot_be_written_changes_nothing_else(tmp_path: Path) -> None:
    """The log says so."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder must be")
    said = _run(blocked / "driver-1.log")
    assert "at noon the log is not kept: " in said
    assert "printed\n" in said
    assert "RuntimeError: raised" in said
