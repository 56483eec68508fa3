"""Server-Sent Events (WHATWG HTML, section 9.2) as a reader sees them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def contents(chunks: Iterable[bytes]) -> Iterator[str | None]:
    """The `data` of each event in a stream; None for each line without one, which says that somebody is still there.

    An event that the stream breaks off in is left out.
    """
    data: list[str] = []
    for line in _lines(chunks):
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif line == "" and data:
            yield "\n".join(data)
            data = []
        else:
            yield None


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    # `str.splitlines` and httpx's `iter_lines` would also split at U+2028, which JSON may have within a text.
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
