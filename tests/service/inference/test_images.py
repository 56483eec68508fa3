"""Strangers' bytes become pixels, or a sentence that says why not."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadImage, TooLarge
from service.inference.image_header import read_header
from service.inference.images import decode

COLOUR = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
"""RGB; no two channels alike."""
LOSSLESS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WebP"}
MANY = 10**6


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Any:
    logging = cv2.utils.logging
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    yield
    logging.setLogLevel(before)


def _encode(image: np.ndarray[Any, Any], kind: str, *options: int) -> bytes:
    if kind == ".webp":
        options = (cv2.IMWRITE_WEBP_QUALITY, 101)  # lossless
    return bytes(cv2.imencode(kind, image, options)[1])


def _png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for what OpenCV does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


@pytest.mark.parametrize("kind", LOSSLESS)
def test_colours_come_in_the_order_red_green_blue(kind: str) -> None:
    """Each lossless format gives back every pixel, as RGB."""
    decoded = decode(_encode(COLOUR[:, :, ::-1], kind), max_pixels=MANY)
    np.testing.assert_array_equal(decoded, COLOUR)


@pytest.mark.parametrize("kind", [".png", ".bmp", ".tif"])
def test_grey_stays_grey(kind: str) -> None:
    """A file with one channel has one when decoded."""
    grey = COLOUR[:, :, 0]
    np.testing.assert_array_equal(decode(_encode(grey, kind), max_pixels=MANY).reshape(9, 14, -1)[:, :, 0], grey)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_a_jpeg_is_nearly_what_was_written(options: tuple[int, ...]) -> None:
    """Red stays red: a flat colour survives JPEG to within its rounding."""
    red = np.full((32, 32, 3), (250, 20, 30), np.uint8)
    decoded = decode(_encode(red[:, :, ::-1], ".jpg", *options), max_pixels=MANY)
    assert np.abs(decoded.astype(int) - red).max() <= 3
    grey = decode(_encode(red[:, :, 0], ".jpg"), max_pixels=MANY)
    assert grey.shape == (32, 32)


def test_a_photograph_is_turned_upright() -> None:
    """EXIF orientation 6: the camera was held on its side."""
    image = np.zeros((16, 48), np.uint8)
    image[:, :16] = 255
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"
    plain = _encode(image, ".jpg")
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    np.testing.assert_array_equal(
        decode(turned, max_pixels=MANY) > 127, np.rot90(decode(plain, max_pixels=MANY) > 127, -1)
    )


def test_what_is_transparent_shows_a_white_page() -> None:
    """A drawing on a transparent ground looks as it does in a browser; half-transparent mixes."""
    rgba = bytes([0, 0, 0, 0, 200, 0, 0, 255, 0, 0, 0, 128])
    decoded = decode(_png(3, 1, 8, 6, b"\0" + rgba), max_pixels=MANY)
    assert decoded.tolist() == [[[255, 255, 255], [200, 0, 0], [127, 127, 127]]]


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (_png(4, 1, 2, 3, b"\0\x1b", (b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7]))),
         [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]]]),
        (_png(4, 1, 1, 0, b"\0\x50"), [[0, 255, 0, 255]]),
        (_png(2, 1, 16, 0, b"\0\xab\xcd\xff\xff"), [[0xAB, 255]]),
        (_png(1, 1, 16, 2, b"\0\x01\x00\x02\x00\x03\x00"), [[[1, 2, 3]]]),
        (_png(1, 1, 8, 4, b"\0\x10\x80"), [[[135, 135, 135]]]),
    ],
    ids=["palette", "one bit", "16-bit grey", "16-bit colour", "grey with alpha"],
)  # fmt: skip
def test_rarer_kinds_of_png_become_8_bits(content: bytes, pixels: Any) -> None:
    """Palettes, single bits, 16 bits and grey with alpha all become 8-bit grey or RGB."""
    assert decode(content, max_pixels=MANY).tolist() == pixels


@pytest.mark.parametrize("kind", [".png", ".tif"])
def test_16_bits_keep_the_upper_8(kind: str) -> None:
    """An 8-bit image that was stretched to 16 bits comes back as it was."""
    decoded = decode(_encode(COLOUR[:, :, ::-1].astype(np.uint16) * 257, kind), max_pixels=MANY)
    np.testing.assert_array_equal(decoded, COLOUR)


def test_floating_point_pixels_are_refused() -> None:
    """Nobody can know what their range is."""
    with pytest.raises(BadImage, match="need 8 or 16 bits a channel, got a TIFF of float32"):
        decode(_encode(COLOUR.astype(np.float32), ".tif"), max_pixels=MANY)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "there are no bytes"),
        (b"GIF89a...", "need PNG, JPEG, BMP, TIFF, WebP, got bytes that start with b'GIF89a..'"),
        (b"<svg/>", "need PNG, JPEG"),
        (b"RIFF\0\0\0\0WAVEfmt ", "need PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n", "the PNG does not start with its header"),
        (_png(0, 5, 8, 0, b""), "the PNG header says 0 x 5 pixels"),
        (b"\xff\xd8\xff\xd9", "the JPEG has no frame header"),
        (b"\xff\xd8\xff\xe0\x00", "the JPEG header is cut off"),
        (b"\xff\xd8\xff\xe0\x00\x02zz", "bytes between its segments"),
        (_encode(COLOUR, ".jpg").replace(b"\xff\xda", b"\xff\xda" * 102), "the JPEG has more than 100 scans"),
        (b"BM" + bytes(10), "the BMP header is cut off"),
        (b"II*\0\xff\xff\xff\xff", "the TIFF header is cut off"),
        (b"II+\0\x08\0\0\0" + b"\xff" * 8, "the TIFF header is cut off"),
        (b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\xff" * 8 + bytes(2**21), "the TIFF header says 0 x 0 pixels"),
        (b"II*\0\x08\0\0\0\0\0", "the TIFF header says 0 x 0 pixels"),
        (b"RIFF\0\0\0\0WEBPVP9 ", "unknown chunk"),
    ],
)
def test_bytes_that_are_no_image_say_why(content: bytes, rule: str) -> None:
    """Empty, foreign, headless: each has its sentence."""
    with pytest.raises(BadImage, match=rule):
        decode(content, max_pixels=MANY)


_HUGE = {
    "PNG": _png(60_000, 60_000, 8, 2, b""),
    "JPEG": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 60_000, 60_000, 3),
    "BMP": b"BM" + bytes(12) + struct.pack("<Iii", 40, 60_000, -60_000),
    "TIFF": b"MM\0*" + struct.pack(">IHHHIIHHII", 8, 2, 256, 4, 1, 60_000, 257, 4, 1, 60_000),
    "WebP": b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + struct.pack("<HBHB", 16_382, 0, 16_382, 0),
    "tiled TIFF": b"II*\0" + struct.pack("<IH", 8, 4)
    + b"".join(struct.pack("<HHII", tag, 4, 1, size) for tag, size in ((256, 8), (257, 8), (322, 9999), (323, 9999))),
}  # fmt: skip


@pytest.mark.parametrize("kind", _HUGE)
def test_a_header_of_many_pixels_is_refused_before_memory_is_taken(kind: str) -> None:
    """A file of a few bytes that announces gigapixels costs a few bytes."""
    tracemalloc.start()
    with pytest.raises(TooLarge, match=r"need at most 64000000 pixels, got \d+ x \d+"):
        decode(_HUGE[kind], max_pixels=64_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def _after(marker: bytes) -> bytes:
    """A JPEG of 14 x 9 pixels within what looks like a segment of such a marker, and a frame of 1 x 1 after it."""
    image = _encode(COLOUR, ".jpg")[2:]
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 1, 1, 3) + bytes(9)
    return b"\xff\xd8" + marker + struct.pack(">H", len(image) + 2) + image + frame


def _retagged(*before: bytes, without: Sequence[int] = (), after: Sequence[bytes] = ()) -> bytes:
    """A TIFF of 14 x 9 pixels with other tags in its directory."""
    content = _encode(COLOUR, ".tif")
    (at,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, at)
    tags = [content[start : start + 12] for start in range(at + 2, at + 2 + 12 * count, 12)]
    tags = [*before, *(tag for tag in tags if struct.unpack_from("<H", tag)[0] not in without), *after]
    directory = struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory


def _tag(number: int, kind: int, value: int) -> bytes:
    return struct.pack("<HHII", number, kind, 1, value)


_HIDDEN = {
    **{f"JPEG after FF {kind:02X}": _after(bytes([0xFF, kind])) for kind in (0x00, 0x01, 0xD0, 0xD7)},
    "TIFF with a second width": _retagged(after=[_tag(256, 4, 1)]),
    "TIFF with a second height": _retagged(after=[_tag(257, 4, 1)]),
    "TIFF with a second width, the first one signed": _retagged(
        _tag(256, 9, 14), without=[256], after=[_tag(256, 4, 1)]
    ),
    "TIFF with a width that stands elsewhere": _retagged(without=[256], after=[_tag(256, 16, 14)]),
    "TIFF with a signed width of its tiles": _retagged(after=[_tag(322, 9, 9999), _tag(323, 4, 16)]),
}


@pytest.mark.parametrize("kind", _HIDDEN)
def test_a_second_header_is_refused(kind: str) -> None:
    """OpenCV's decoders would take that one: the limit would hold for an image that nobody decodes."""
    with pytest.raises(BadImage, match=r"the JPEG has a marker FF|the TIFF has its tag|the TIFF's tag"):
        decode(_HIDDEN[kind], max_pixels=100)


def test_a_jpeg_of_printing_inks_comes_in_red_green_and_blue() -> None:
    """CMYK, all four of which are in use, as Pillow has it."""
    inks = np.random.default_rng(2).integers(0, 256, (4, 6, 4), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    file = io.BytesIO()
    PIL.Image.fromarray(inks, "CMYK").save(file, "JPEG", quality=95)
    with PIL.Image.open(file) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert expected.std() > 30
    decoded = decode(file.getvalue(), max_pixels=MANY)
    assert decoded.shape == (32, 48, 3)
    assert np.abs(decoded - expected).max() <= 2


def test_the_limit_itself_is_allowed() -> None:
    """9 x 14 pixels are 126."""
    content = _encode(COLOUR, ".png")
    assert decode(content, max_pixels=126).shape == COLOUR.shape
    with pytest.raises(TooLarge, match="need at most 125 pixels, got 14 x 9"):
        decode(content, max_pixels=125)


@pytest.mark.parametrize("kind", [*LOSSLESS, ".jpg"])
def test_an_image_that_is_cut_off_is_refused(kind: str) -> None:
    """Wherever it is cut, but for the last bytes of a TIFF, which only say that no other picture follows."""
    content = _encode(COLOUR, kind)
    for length in range(1, len(content) - 4):
        with pytest.raises(BadImage):
            decode(content[:length], max_pixels=MANY)


def test_a_png_that_announces_a_large_chunk_takes_no_memory_for_it() -> None:
    """OpenCV would take 2 GB for these 60 bytes, and seconds to do so."""
    content = _png(1, 1, 8, 0, b"\0\0")
    at = content.index(b"IDAT") - 4
    with pytest.raises(BadImage, match="the PNG is cut off within its chunk b'IDAT'"):
        decode(content[:at] + struct.pack(">I", 2**31 - 1) + content[at + 4 :], max_pixels=MANY)


def test_a_tall_transparent_image_is_mixed_row_by_row() -> None:
    """Wherever the rows are cut for the arithmetic, each pixel gets its own opacity."""
    rgba = np.random.default_rng(1).integers(0, 256, (131, 3, 4), dtype=np.uint8)
    content = bytes(cv2.imencode(".png", rgba[:, :, [2, 1, 0, 3]])[1])
    colour, opacity = rgba[:, :, :3].astype(float), rgba[:, :, 3:] / 255
    np.testing.assert_allclose(decode(content, max_pixels=MANY), colour * opacity + 255 * (1 - opacity), atol=0.51)


@pytest.mark.parametrize("kind", [*LOSSLESS, ".jpg"])
def test_the_header_tells_the_size_that_decoding_finds(kind: str) -> None:
    """The early check and the decoder speak of the same image."""
    header = read_header(_encode(COLOUR, kind))
    assert (header.width, header.height) == (14, 9)
    assert header.format == LOSSLESS.get(kind, "JPEG")


_SEEDS = [
    _encode(COLOUR, ".png"), _encode(COLOUR, ".jpg"), _encode(COLOUR, ".bmp"), _encode(COLOUR, ".tif"),
    _encode(COLOUR, ".webp"), bytes(cv2.imencode(".webp", COLOUR)[1]), _encode(COLOUR[:, :, 0], ".tif"),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_never_does_more_than_change_pixels(data: st.DataObject) -> None:
    """Bytes changed, dropped or put in anywhere: the answer is pixels within the limit, or one of our two errors."""
    content = bytearray(data.draw(st.sampled_from(_SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["change", "drop", "insert", "cut"])):
            case "change":
                content[at] = data.draw(st.integers(0, 255))
            case "drop":
                del content[at : at + data.draw(st.integers(1, 8))]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del content[at:]
        if not content:
            return
    try:
        pixels = decode(bytes(content), max_pixels=10_000)
    except (BadImage, TooLarge):
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] * pixels.shape[1] <= 10_000
    assert pixels.ndim == 2 or pixels.shape[2] == 3
