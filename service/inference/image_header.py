"""What an image file says of itself before it is decoded: its format and its size.

A file of a few bytes may announce gigapixels; this is what lets us refuse it without allocating them. Only the five
formats below are read at all, so that none of OpenCV's rarer decoders ever sees a stranger's bytes.

Layouts: PNG (ISO/IEC 15948), JPEG (ITU-T T.81, annex B), BMP (its info header), TIFF 6.0 and BigTIFF, WebP (RFC 9649).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import BadImage


@dataclass(frozen=True, slots=True)
class Header:
    """Format and size in pixels, as the file has it; for a tiled TIFF at least the size of a tile."""

    format: str
    width: int
    height: int


def read_header(data: bytes) -> Header:
    """The header of an image file.

    Raises:
        BadImage: no bytes, another format, a header that is cut off or makes no sense, an image without pixels.
    """
    if not data:
        raise BadImage("there are no bytes")
    for name, starts, size in _FORMATS:
        if any(data.startswith(start) for start in starts) and (name != "WebP" or data[8:12] == b"WEBP"):
            try:
                width, height = size(data)
            except (struct.error, IndexError, OverflowError) as error:  # the last: an offset beyond any address
                raise BadImage(f"the {name} header is cut off") from error
            if width <= 0 or height <= 0:
                raise BadImage(f"the {name} header says {width} x {height} pixels")
            return Header(name, width, height)
    raise BadImage(f"need {', '.join(name for name, *_ in _FORMATS)}, got bytes that start with {data[:8]!r}")


def _png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise BadImage("the PNG does not start with its header")
    # OpenCV takes memory for as many bytes as a chunk announces, up to 2 GB, before it looks whether they are there.
    at, kind = 8, b""
    while kind != b"IEND":
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        at += 12 + length
        if at > len(data):
            raise BadImage(f"the PNG is cut off within its chunk {kind!r}")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        marker, kind = data[at], data[at + 1]
        if marker != 0xFF:
            raise BadImage("the JPEG has bytes between its segments")
        if kind == 0xFF:  # padding
            at += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a frame; these three are tables
            # A scan of a progressive JPEG costs a pass over all pixels and may take few bytes; writers make about 10.
            # Within a scan's data 0xFF is always followed by 0 or by a restart marker, so this counts scans only.
            if data.count(b"\xff\xda", at) > _MAX_SCANS:
                raise BadImage(f"the JPEG has more than {_MAX_SCANS} scans")
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif kind in (0xD9, 0xDA):  # the end, or the pixels
            raise BadImage("the JPEG has no frame header")
        elif kind not in _JPEG_SEGMENTS:
            raise BadImage(f"the JPEG has a marker FF {kind:02X} before its frame header")
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + length


_JPEG_SEGMENTS = frozenset((0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE))
"""Tables, application data and comments: what libjpeg, too, passes over by its length.

What has no length (TEM, restarts, a stuffed 0) it passes over as it is; a frame could hide in the segment we saw there.
"""
_MAX_SCANS = 100


def _bmp(data: bytes) -> tuple[int, int]:
    (length,) = struct.unpack_from("<I", data, 14)
    if length == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height: rows from the top


def _tiff(data: bytes) -> tuple[int, int]:
    end = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (at,) = struct.unpack_from(end + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(end + ("Q" if big else "H"), data, at)
    at += 8 if big else 2
    kinds = {**_TIFF_KINDS, 16: "Q"} if big else _TIFF_KINDS
    sizes: dict[int, int] = {}
    for _ in range(min(count, 2**16)):  # a BigTIFF may claim 2**64 of them
        tag, kind = struct.unpack_from(end + "HH", data, at)
        if tag in _TIFF_SIZES:
            if tag in sizes:
                raise BadImage(f"the TIFF has its tag {tag} twice")
            if kind not in kinds:  # libtiff reads signed ones too, and those that are too long to stand here
                raise BadImage(f"the TIFF's tag {tag} has the type {kind}, need one of {sorted(kinds)}")
            (sizes[tag],) = struct.unpack_from(end + kinds[kind], data, at + (12 if big else 8))
        at += 20 if big else 12
    width, height, tile_width, tile_height = (sizes.get(tag, 0) for tag in _TIFF_SIZES)
    if not (width and height):
        return 0, 0
    return max(width, tile_width), max(height, tile_height)  # a decoder also allocates a whole tile


_TIFF_SIZES = (256, 257, 322, 323)  # ImageWidth, ImageLength, TileWidth, TileLength
_TIFF_KINDS = {1: "B", 3: "H", 4: "I"}


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise BadImage(f"the WebP starts with an unknown chunk {kind!r}")


_FORMATS: tuple[tuple[str, tuple[bytes, ...], Callable[[bytes], tuple[int, int]]], ...] = (
    ("PNG", (b"\x89PNG\r\n\x1a\n",), _png),
    ("JPEG", (b"\xff\xd8\xff",), _jpeg),
    ("BMP", (b"BM",), _bmp),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    ("WebP", (b"RIFF",), _webp),
)
