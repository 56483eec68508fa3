"""The reference images that the original programs made, where they are at hand.

They are no part of this repository, but of a folder `shared/reference` beside it; without it their tests skip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"

Arrays = Mapping[str, npt.NDArray[Any]]


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Arrays]:
    """Reads one file of reference images by its name, or skips the test."""

    def read(name: str) -> Arrays:
        path = REFERENCE / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"no reference images: {path} is not there")
        with np.load(path) as file:
            return dict(file)

    return read
