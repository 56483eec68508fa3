"""What a process of the service logs, and in which form."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TextIO, final

from service import trace


def configure(*, as_json: bool, stream: TextIO | None = None, text: str, traceparent: str = "") -> None:
    """Logs from INFO on to `stream` (None: stderr).

    Args:
        as_json: a JSON object a line, for machines.
        stream: where to.
        text: the form of lines for people, as `logging` has it.
        traceparent: of the whole process, where it has one; what belongs to another says so itself.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(traceparent) if as_json else logging.Formatter(text))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


@final
class JsonLines(logging.Formatter):
    """A record as a JSON object: `time`, `level`, `logger`, `message`, `trace_id`, `exception`, and what its `extra`
    has under `data`."""

    def __init__(self, traceparent: str = "") -> None:
        super().__init__()
        self._traceparent = traceparent

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "trace_id": trace.trace_id(trace.current() or self._traceparent),
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
            **getattr(record, "data", {}),
        }
        return json.dumps({name: value for name, value in line.items() if value != ""}, default=str)
