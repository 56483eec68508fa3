"""Where a sweep's dataset is made: by the driver itself, or as Ray tasks on the processors of the whole cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayTaskError

from trainables.data.journal import Block, Checksums
from trainables.data.spread import Spread, Write, over_threads

PATIENCE = 5.0
"""Seconds that tasks which run get to end once no more are wanted."""


def spread() -> Spread:
    """What makes a dataset soonest. Ray must be connected.

    Where the cluster has no more processors than the driver, threads win: tasks would wait for workers to import torch.
    """
    here = len(os.sched_getaffinity(0))
    return over_the_cluster if ray.cluster_resources().get("CPU", 0) > here else over_threads


def over_the_cluster(write: Write, blocks: Sequence[Block]) -> Iterator[tuple[Block, Checksums]]:
    """One task a block. Every node must see the disk.

    Whatever a task raises is raised here; no other is begun then, and those that run are waited for, for some seconds.
    A task whose worker or node died is run again, and writes the same bytes at the same place.
    """
    task = ray.remote(num_cpus=1)(_call)
    shared = ray.put(write)  # once, though it may hold a whole published dataset
    waiting = deque(blocks)
    running: dict[ray.ObjectRef, Block] = {}
    try:
        while waiting or running:
            # No more than run at a time: none is ever to be called off, for Ray 2.60 ends the process that calls off a
            # task in the moment in which it ends by itself.
            while waiting and len(running) < max(1, ray.cluster_resources().get("CPU", 0)):
                block = waiting.popleft()
                running[task.remote(shared, block)] = block
            (done,), _ = ray.wait(list(running))
            block = running.pop(done)
            try:
                checksums = ray.get(done)
            except RayTaskError as error:
                raise error.cause from None
            yield block, checksums
    finally:
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)


def _call(write: Write, block: Block) -> Checksums:
    return write(block)
