"""Which images go where: seeded orders that are the same on every machine and with every release of NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def order(n: int, seed: int) -> npt.NDArray[np.int64]:
    """A permutation of `0..n-1` that depends only on `n` and `seed`.

    NumPy promises stable streams for its bit generators only, not for `Generator.permutation`; so this sorts raw
    64-bit draws (stably, though two equal ones are not to be expected).
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable").astype(np.int64)
