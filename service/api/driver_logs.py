"""What a sweep's drivers printed: however much that is, little of it is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

NEWEST_BYTES = 4 * 2**20
"""Of each log."""


def printed(logs: Sequence[Path], last: str) -> Iterator[bytes]:
    """The newest end of each file that is there, then that of `last`; each whole unless it says what is left out."""
    for path in logs:
        try:
            with path.open("rb") as file:
                left_out = max(0, file.seek(0, 2) - NEWEST_BYTES)
                file.seek(left_out)
                content = file.read(NEWEST_BYTES)
        except FileNotFoundError:
            continue
        yield _end(content, left_out)
    content = last.encode("utf-8", "replace")
    yield _end(content[-NEWEST_BYTES:], max(0, len(content) - NEWEST_BYTES))


def _end(content: bytes, left_out: int) -> bytes:
    # From the beginning of a line on; a file may have anything, what is answered is UTF-8.
    if left_out:
        line = content.find(b"\n") + 1
        content, left_out = content[line:], left_out + line
    said = f"({left_out} bytes before this are left out)\n" if left_out else ""
    return (said + content.decode("utf-8", "replace")).encode()
