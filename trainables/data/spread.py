"""How the blocks of a dataset are shared out among processors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from trainables.data.journal import Block, Checksums

Write = Callable[[Block], Checksums]
"""Makes a block and puts it on disk; in any thread or process that has the disk."""
Spread = Callable[[Write, Sequence[Block]], Iterable[tuple[Block, Checksums]]]
"""Has every block written, and gives each when it is on disk."""


def over_threads(write: Write, blocks: Sequence[Block]) -> Iterator[tuple[Block, Checksums]]:
    """As many at a time as this process has processors. What fails or is interrupted first gives what is in hand."""
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    running = {pool.submit(write, block): block for block in blocks}
    try:
        for future in as_completed(list(running)):
            checksums = future.result()
            yield running.pop(future), checksums
    except (Exception, KeyboardInterrupt):
        pool.shutdown(cancel_futures=True)
        for future, block in running.items():
            if not future.cancelled() and future.exception() is None:
                yield block, future.result()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
