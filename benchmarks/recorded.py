"""The file of a result, and what every result says of how it was made. No script of its own."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOAD_BEFORE = os.getloadavg()[0]
"""Of other work, when the script began: what was measured on a busy machine must not pass for a quiet one."""
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
"""Of processors, on which the speed of training and serving depends."""


def record(name: str, content: Mapping[str, Any], *, packages: Sequence[str] = ()) -> Path:
    """Writes `results/<name>.json`: the content, and how it was made; says so and returns the path."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**content, "made": made(packages)}, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")
    return path


def made(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Date, commit, processor, load of the machine, and the versions of Python and of these packages."""
    cpu = cpuinfo()
    flags = cpu.get("flags", "").split()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cpu_features": [feature for feature in FEATURES if feature in flags],
        "cores": len(os.sched_getaffinity(0)),
        "load_average": {"before": LOAD_BEFORE, "after": os.getloadavg()[0]},
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def commit() -> str:
    """Of the code that was measured; `+changes` where it differs from that."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    code = ["benchmarks/*.py", "service", "trainables", "search_spaces"]
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", *code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return asked.stdout.strip() + ("+changes" if changed.stdout else "")


def cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty on other systems."""
    path = Path("/proc/cpuinfo")
    first = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles, range and number of values."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return {
        "median": statistics.median(values),
        "quartile_1": low,
        "quartile_3": high,
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }
