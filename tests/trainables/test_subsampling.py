"""What an engine is given to leave out is what training leaves out."""

from __future__ import annotations

import pytest
import torch

from trainables.subsampling import subsampled


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")  # engines still take what it makes
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (7, 9), (2, 1)])
def test_it_is_the_same_whether_it_is_traced_or_not(stride: int, rows: int, columns: int) -> None:
    """Every so many rows and columns from the first on, at sizes that the stride does not divide, too."""
    maps = torch.randn(2, 3, rows, columns, generator=torch.Generator().manual_seed(0))
    wanted = maps[:, :, 0::stride, 0::stride]
    traced = torch.jit.trace(lambda some: subsampled(some, stride), maps, check_trace=False)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(subsampled(maps, stride), wanted, rtol=0, atol=0)
    torch.testing.assert_close(traced(maps), wanted, rtol=0, atol=0)
    assert ("max_pool2d" in str(traced.graph)) == (stride > 1)
