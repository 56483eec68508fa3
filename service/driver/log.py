"""The sweep's log as a file beside its checkpoints: Ray forgets a job's with the cluster."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO, final

logger = logging.getLogger(__name__)


def keep_log(path: Path) -> None:
    """Writes to `path` as well, from now on, what this process logs or prints: workers' words, uncaught exceptions.

    Where the file cannot be written, the log says so and the sweep goes on without it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8", errors="replace", buffering=1)
    except OSError as error:
        logger.warning("the log is not kept: %s", error)
        return
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(_Both(handler.stream, file))
    sys.stdout, sys.stderr = _Both(sys.stdout, file), _Both(sys.stderr, file)


@final
class _Both(io.TextIOBase):
    """A stream that is written to a file as well; a file that takes no more does not keep the stream from its own."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()
