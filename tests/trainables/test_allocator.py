"""The memory allocator of a training process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, torch
from trainables.allocator import keep_freed_memory, release_freed_memory
from trainables.cost import peak_memory, reset_peak_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(32 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default = faults()
keep_freed_memory()
faults()
kept = faults()
cpu = torch.device("cpu")
reset_peak_memory(cpu)
before = peak_memory(cpu)
release_freed_memory()
reset_peak_memory(cpu)
print(default, kept, before - peak_memory(cpu))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again_until_it_is_released() -> None:
    """Tensors of 32 MiB cost page faults each time by default, none once memory is kept; releasing gives it back."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    default, kept, released = map(int, done.stdout.split())
    assert default >= 10 * 16  # sixteen a tensor where pages are huge, else 8192
    assert kept < default / 10
    assert released > 16 * 2**20
