"""How many images a second do the generators make: Pathfinder by path length, cluttered ABC by difficulty.

    python benchmarks/data_generation.py

One core: batches of images made in one thread, drawn whole (300x300, 350x350) and resized to 150x150. The figure is
images a second of this thread's processor time, so that other work on the machine does not count; wall time is beside
it. Where the time goes is that of the three parts: composing (where everything is), drawing, resizing.
All cores: the dataset is made as users make it, written and synchronised to disk; there the figure is wall time.
The first images of every case, which compile, are thrown away.

The original programs, for scale: facts of an earlier measurement on one core of an Intel Xeon (200 and 50 images).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.data.cabc import ClutteredABC
from trainables.data.cabc import scene as cabc
from trainables.data.pathfinder import Pathfinder
from trainables.data.pathfinder import scene as pathfinder

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ORIGINAL = {
    "pathfinder 6": 10.9,
    "pathfinder 9": 7.3,
    "pathfinder 14": 4.4,
    "cabc easy": 1 / 4.07,
    "cabc intermediate": 1 / 4.37,
    "cabc hard": 1 / 4.10,
}
GOALS = {"pathfinder 6": 1000, "pathfinder 9": 700, "pathfinder 14": 450} | {
    f"cabc {difficulty}": 50 for difficulty in ("easy", "intermediate", "hard")
}


def cases() -> dict[str, Pathfinder | ClutteredABC]:
    """What is measured, by name."""
    lengths = {f"pathfinder {length}": Pathfinder(path_length=length) for length in (6, 9, 14, 20, 25)}
    difficulties = ("easy", "intermediate", "hard")
    return lengths | {f"cabc {name}": ClutteredABC.from_dict({"difficulty": name}) for name in difficulties}


def one_core(config: Pathfinder | ClutteredABC, batches: int, images: int) -> dict[str, Any]:
    """Images a second of processor time and of wall time, batch by batch, and the parts' microseconds an image."""
    config.make("train", 0, images)
    processor, wall = [], []
    for batch in range(1, batches + 1):
        started, began = time.perf_counter(), time.thread_time()
        config.make("train", batch * images, (batch + 1) * images)
        processor.append(images / (time.thread_time() - began))
        wall.append(images / (time.perf_counter() - started))
    draw: Any = pathfinder.draw if isinstance(config, Pathfinder) else cabc.draw
    began = time.thread_time()
    scenes = [config.scene("train", image) for image in range(images)]
    composed = time.thread_time()
    drawn = [draw(scene) for scene in scenes]
    finished = time.thread_time()
    for image in drawn:
        config.preprocessing.fit(image)
    resized = time.thread_time()
    parts = {"compose": composed - began, "draw": finished - composed, "resize": resized - finished}
    return {
        "images_per_second": _summary(processor),
        "images_per_second_wall": _summary(wall),
        "microseconds_an_image": {name: 1e6 * seconds / images for name, seconds in parts.items()},
    }


def all_cores(config: Pathfinder | ClutteredABC, images: int, rounds: int) -> dict[str, Any]:
    """Images a second of wall time when a dataset is made on disk, round by round (each with another seed)."""
    speeds = []
    for seed in range(1, rounds + 1):
        sized = type(config).from_dict(
            {key: value for key, value in config.to_dict().items() if key != "name"}
            | {"train": images, "validation": 1, "test": 1, "seed": seed}
        )
        with tempfile.TemporaryDirectory() as root:
            started = time.perf_counter()
            sized.load(Path(root))
            speeds.append(images / (time.perf_counter() - started))
    return {"images_per_second_wall": _summary(speeds)}


def _summary(values: list[float]) -> dict[str, Any]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "quartiles": [low, high], "n": len(values)}


def main() -> None:
    """Measure, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="of datasets made on all cores")
    arguments = parser.parse_args()
    load_before = os.getloadavg()
    measured = {}
    print(f"{'case':18} {'images/s, one core':>19} {'(quartiles)':>17} {'wall':>8} {'all cores':>10} {'original':>9}")
    for name, config in cases().items():
        images = 200 if name.startswith("pathfinder") else 40
        result = one_core(config, arguments.batches, images) | {"images_a_batch": images}
        result["all_cores"] = all_cores(config, images * 10, arguments.rounds) | {"images": images * 10}
        result["original"], result["goal"] = ORIGINAL.get(name), GOALS.get(name)
        measured[name] = result
        speed = result["images_per_second"]
        low, high = speed["quartiles"]
        print(
            f"{name:18} {speed['median']:19,.0f} {f'({low:,.0f}, {high:,.0f})':>17} "
            f"{result['images_per_second_wall']['median']:8,.0f} "
            f"{result['all_cores']['images_per_second_wall']['median']:10,.0f} {ORIGINAL.get(name, float('nan')):9.2f}",
            flush=True,
        )
    RESULTS.mkdir(exist_ok=True)
    content = {
        "question": "images a second that the generators make",
        "measured": measured,
        "made": {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": _git("rev-parse", "HEAD")
            + ("+changes" if _git("status", "--porcelain", "trainables/data") else ""),
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average_before_and_after": [load_before, os.getloadavg()],
            "python": platform.python_version(),
            **{name: version(name) for name in ("numba", "numpy", "opencv-python-headless", "pillow")},
        },
    }
    path = RESULTS / "data_generation.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], check=False, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
