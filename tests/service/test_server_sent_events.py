"""Server-Sent Events, read."""

from __future__ import annotations

import pytest

from service.server_sent_events import contents

STREAM = """retry: 2000

: nothing new

id: 1
event: sweep
data: {"what": "caf\u00e9 \u2028 \x85"}

data:first
data: second

data: the stream breaks off here
"""


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stream_is_read_however_it_is_cut(size: int, end: str) -> None:
    """Also within a character; only line feeds end lines, and an event that has no end is none."""
    stream = STREAM.replace("\n", end).encode()
    read = list(contents(stream[i : i + size] for i in range(0, len(stream), size)))
    assert [content for content in read if content is not None] == [
        '{"what": "caf\u00e9 \u2028 \x85"}',
        "first\nsecond",
    ]
    assert read.index(None) == 0
