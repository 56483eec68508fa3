"""The file of a result, and what every result says of how it was made. No script of its own."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import subprocess
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import psutil

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


def results(name: str) -> dict[str, Any]:
    """What `results/<name>.json` says; nothing where there is none."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}  # type: ignore[no-any-return]


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
    """Of the code that was measured; `+changes` where it differs from that; empty outside a repository."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True)
    code = ["benchmarks/*.py", "service", "trainables", "search_spaces"]
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", *code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    return asked.stdout.strip() + ("+changes" if changed.stdout else "")


def code(*paths: str) -> str:
    """What the last commit has at these paths, as a digest; `+changes` where that is not what is there.

    Other commits that have the same there have the same digest. Empty outside a repository.
    """

    def ask(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, check=False, capture_output=True, text=True).stdout

    there, changed = ask("ls-tree", "HEAD", "--", *paths), ask("status", "--porcelain", "--", *paths)
    digest = hashlib.sha256(there.encode()).hexdigest()[:16] if there else ""
    return digest + ("+changes" if changed else "")


def cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty on other systems."""
    path = Path("/proc/cpuinfo")
    first = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}


class ProcessorTime:
    """Seconds of processor time that processes take while the context lasts, children that come and go among them.

    They are looked at every half a second, and what one takes between the last look and its end is missed. Unlike
    times by the clock it holds on a machine that does other work.

    Args:
        roots: ids of processes; all their descendants count with them.
    """

    def __init__(self, *roots: int) -> None:
        self._roots = roots
        self._first: dict[tuple[int, float], float] = {}
        self._last: dict[tuple[int, float], tuple[float, str]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._first = {key: seconds for key, (seconds, _) in self._last.items()}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._look()

    def by_role(self) -> dict[str, float]:
        """Seconds by the names of processes: Ray gives its own ones names, other ones have that of their program."""
        found: dict[str, float] = defaultdict(float)
        for key, (seconds, role) in self._last.items():
            found[role] += seconds - self._first.get(key, 0.0)
        return dict(found)

    def _watch(self) -> None:
        while not self._ending.wait(0.5):
            self._look()

    def _look(self) -> None:
        for root in self._roots:
            with suppress(psutil.NoSuchProcess):
                top = psutil.Process(root)
                for process in [top, *top.children(recursive=True)]:
                    with suppress(psutil.NoSuchProcess):
                        times = process.cpu_times()
                        role = _role(process.cmdline())
                        self._last[process.pid, process.create_time()] = times.user + times.system, role


def _role(command: list[str]) -> str:
    """What a process is, by its command line."""
    line = " ".join(command)
    known = {
        "service.driver": "driver",
        "benchmarks/peers/": "driver",
        "-m service api": "API",
        "-m mlflow": "MLflow",
        "mlflow.server": "MLflow",
        "Agent": "Ray",
        "JobSupervisor": "Ray",
        "ray::": "workers",
        "default_worker.py": "workers",
        "sweep_overhead.py": "benchmark",
    }
    return next((role for mark, role in known.items() if mark in line), "Ray")


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
