"""Masks as lengths of runs, as answers have them."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor


def run_lengths(mask: Tensor) -> dict[str, Any]:
    """`size` (rows and columns) and `counts` of a bool mask `[h, w]`.

    Counts are lengths of runs along the rows, from the top left: of what it does not cover first (perhaps 0), then of
    what it does, and so on in turn.
    """
    flat = mask.flatten().to(torch.int8)
    ends = (torch.nonzero(flat[1:] != flat[:-1])[:, 0] + 1).tolist()
    starts = [0] if flat[0] == 0 else [0, 0]
    bounds = [*starts, *ends, len(flat)]
    return {"size": list(mask.shape), "counts": [after - before for before, after in itertools.pairwise(bounds)]}
