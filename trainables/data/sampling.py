"""Which images go where: seeded orders that are the same on every machine and with every release of NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from trainables.data.dataset import DataUnavailable, Split

Labelled = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
"""Images `[n, c, h, w]` and their classes `[n]`."""


def order(n: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation of `0..n-1` that depends only on `n` and `seed`.

    NumPy promises stable streams for its bit generators only, not for `Generator.permutation`; so this sorts raw
    64-bit draws (stably, though two equal ones are not to be expected).
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable").astype(np.int64)


def share_out(
    training: Labelled, test: Labelled, *, counts: Mapping[str, int], seed: int
) -> Callable[[str, int, int], Split]:
    """Makes ranges of the splits of a published dataset, whose validation images are cut from its training images.

    Images are taken in a seeded order, validation first: it does not depend on how many are trained on, and a smaller
    training set is part of a larger one.

    Raises:
        DataUnavailable: there are fewer images than `counts` asks for.
    """
    for kind, (images, _), wanted in (
        ("training", training, counts["validation"] + counts["train"]),
        ("test", test, counts["test"]),
    ):
        if len(images) < wanted:
            raise DataUnavailable(f"need {wanted:,} {kind} images, the files have {len(images):,}")
    orders = {"validation": order(len(training[0]), seed), "test": order(len(test[0]), seed)}
    orders["train"] = orders["validation"][counts["validation"] :]

    def make(split: str, start: int, stop: int) -> Split:
        images, labels = test if split == "test" else training
        chosen = orders[split][start:stop]
        return Split(images=images[chosen], targets=labels[chosen].astype(np.int64))

    return make
