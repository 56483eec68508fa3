"""Does the decoder survive damaged images, and how much memory does that take?

    python benchmarks/decoder_fuzz.py [--inputs 100000] [--seed 0]

Good files of every format are damaged (bytes changed, dropped, put in, cut; headers set to huge sizes; two files
joined; a JPEG or a TIFF with a second, small size) and decoded in this process, where OpenCV's libraries complain on
stderr. Every input must give pixels within the limit, no more than its header says, or one of the service's own two
errors, which are 4xx answers. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import time
from collections import Counter

import cv2
import numpy as np
import PIL.Image

from benchmarks.recorded import record
from service.errors import BadImage, TooLarge
from service.inference.image_header import read_header
from service.inference.images import decode

MAX_PIXELS = 2**20
MEBIBYTE = 2**20


def seeds(generator: np.random.Generator) -> list[bytes]:
    """Good files: each format, grey and colour, 8 and 16 bits, with alpha, in printing inks."""
    shapes = [(9, 14), (9, 14, 3), (9, 14, 4)]
    images = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    deep = generator.integers(0, 2**16, (9, 14, 3), dtype=np.uint16)
    files = [(kind, image) for kind in (".png", ".tif", ".webp", ".bmp") for image in images]
    files += [(".jpg", image) for image in images[:2]] + [(".png", deep), (".tif", deep)]
    made = [bytes(cv2.imencode(kind, image)[1]) for kind, image in files]
    inks = io.BytesIO()
    PIL.Image.fromarray(images[2], "CMYK").save(inks, "JPEG")
    return [*made, inks.getvalue(), bytes(cv2.imencode(".jpg", images[1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])]


def damaged(files: list[bytes], generator: np.random.Generator) -> bytes:
    """One of them, damaged once to six times."""
    content = bytearray(files[generator.integers(len(files))])
    for _ in range(generator.integers(1, 7)):
        at = int(generator.integers(max(1, len(content))))
        match generator.integers(7):
            case 0:
                content[at : at + 1] = generator.bytes(1)
            case 1:
                del content[at : at + int(generator.integers(1, 9))]
            case 2:
                content[at:at] = generator.bytes(int(generator.integers(1, 9)))
            case 3:
                del content[max(at, 8) :]
            case 4:
                huge = int(generator.choice([0x7FFFFFFF, 0xFFFF, 0xFFFFFFFF, 0x10000, 0]))
                content[at : at + 4] = huge.to_bytes(4, "big" if generator.integers(2) else "little")
            case 5:
                content[:] = said_twice(bytes(content), int(generator.choice([0x00, 0x01, 0xD0, 0xD7])))
            case _:
                content += files[generator.integers(len(files))]
    return bytes(content)


def said_twice(content: bytes, marker: int) -> bytes:
    """A JPEG or a TIFF that says in a second place that it has one pixel; a decoder may read the other place."""
    if content.startswith(b"\xff\xd8") and len(content) < 2**16:  # as if it were a segment of that marker
        frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 1, 1, 3) + bytes(9)
        return b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(content)) + content[2:] + frame
    if content.startswith(b"II*\0") and len(content) > 8:
        (at,) = struct.unpack_from("<I", content, 4)
        (count,) = struct.unpack("<H", content[at : at + 2].ljust(2, b"\0"))
        tags = content[at + 2 : at + 2 + 12 * count] + b"".join(
            struct.pack("<HHII", tag, 4, 1, 1) for tag in (256, 257)
        )
        directory = struct.pack("<H", len(tags) // 12) + tags + bytes(4)
        return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory
    return content


def main() -> None:
    """Decodes them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    generator = np.random.default_rng(arguments.seed)
    files, outcomes, slowest = seeds(generator), Counter[str](), 0.0
    before, began = _peak(), time.perf_counter()
    for _ in range(arguments.inputs):
        content, started = damaged(files, generator), time.process_time()
        try:
            pixels = decode(content, max_pixels=MAX_PIXELS)
            header = read_header(content)
            assert pixels.shape[0] * pixels.shape[1] <= min(MAX_PIXELS, header.width * header.height)
            outcomes["pixels"] += 1
        except (BadImage, TooLarge) as error:
            outcomes[type(error).__name__] += 1
        slowest = max(slowest, time.process_time() - started)
    measured = {
        "inputs": arguments.inputs,
        "outcomes": dict(outcomes),
        "seconds": round(time.perf_counter() - began, 1),
        "slowest_input_processor_ms": round(1000 * slowest, 1),
        "peak_memory_mib_before": round(before / MEBIBYTE),
        "peak_memory_mib_after": round(_peak() / MEBIBYTE),
        "max_pixels": MAX_PIXELS,
    }
    content = {"measured": measured, "seed": arguments.seed}
    record("decoder_fuzz", content, packages=("opencv-python-headless",))
    print(json.dumps(measured, indent=1))


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
