"""Datasets made by Ray tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainables.data.digits import Digits

PROGRAM = """
import errno, json, os, sys
from pathlib import Path
import ray
from service.driver.spread import over_the_cluster, spread
from trainables.data.digits import Digits

cores = os.sched_getaffinity(0)
ray.init("local", num_cpus=len(cores), include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[2])
said = {"on its own machine": spread().__name__}
os.sched_setaffinity(0, {min(cores)})
said["on a larger cluster"] = spread().__name__

processes = set()
steps = []
def counted(write, blocks):
    def note(block):
        return {**write(block), "process": os.getpid()}
    for block, checksums in over_the_cluster(note, blocks):
        processes.add(checksums.pop("process"))
        yield block, checksums
Digits(image_size=8).load(Path(sys.argv[1]), lambda done, total: steps.append(done), counted)
said["elsewhere"] = bool(processes) and os.getpid() not in processes
said["steps"] = sorted(steps) == steps and steps[-1]

def full(block):
    raise OSError(errno.ENOSPC, "no room")
said["errors"] = 0
for _ in range(100):  # tasks that fail together
    try:
        list(over_the_cluster(full, [("train", i, i + 1) for i in range(4)]))
    except OSError as error:
        said["errors"] += error.errno == errno.ENOSPC
print(json.dumps(said))
"""


@pytest.mark.slow
def test_tasks_make_what_threads_make(tmp_path: Path, ray_temp: str) -> None:
    """The same bytes, in other processes; an error is raised as what it was; one machine needs no tasks."""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-a-cluster-that-lives-for-one-test"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tasks"), ray_temp]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "on its own machine": "over_threads",
        "on a larger cluster": "over_the_cluster" if len(os.sched_getaffinity(0)) > 1 else "over_threads",
        "elsewhere": True,
        "steps": 1797,
        "errors": 100,
    }
    config = Digits(image_size=8)
    config.load(tmp_path / "threads")
    name = f"digits-{config.digest}"
    files = sorted(path.name for path in (tmp_path / "threads" / name).glob("*.npy"))
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "tasks" / name / file).read_bytes() == (tmp_path / "threads" / name / file).read_bytes()
