"""Where a sweep's dataset is made: by the driver itself, or as Ray tasks on the processors of the whole cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayTaskError

from trainables.data.journal import Block, Checksums
from trainables.data.spread import Spread, Write, over_threads


def spread() -> Spread:
    """What makes a dataset soonest. Ray must be connected.

    Where the cluster has no more processors than the driver, threads win: tasks would wait for workers to import torch.
    """
    here = len(os.sched_getaffinity(0))
    return over_the_cluster if ray.cluster_resources().get("CPU", 0) > here else over_threads


def over_the_cluster(write: Write, blocks: Sequence[Block]) -> Iterator[tuple[Block, Checksums]]:
    """One task a block. Every node must see the disk.

    Whatever a task raises is raised here, and the others are called off. A task whose worker or node died is run again,
    and writes the same bytes at the same place.
    """
    task = ray.remote(num_cpus=1)(_call)
    shared = ray.put(write)  # once, though it may hold a whole published dataset
    running = {task.remote(shared, block): block for block in blocks}
    try:
        while running:
            (done,), _ = ray.wait(list(running))
            try:
                checksums = ray.get(done)
            except RayTaskError as error:
                raise error.cause from None
            yield running.pop(done), checksums
    finally:
        for left in running:
            ray.cancel(left)


def _call(write: Write, block: Block) -> Checksums:
    return write(block)
