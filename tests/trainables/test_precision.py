"""How a GPU multiplies float32 numbers: flags of the process that are set for a while."""

from __future__ import annotations

import pytest
import torch

from trainables.precision import float32_products

BACKENDS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)


def flags() -> list[str]:
    """What holds now."""
    return [backend.fp32_precision for backend in BACKENDS]


@pytest.mark.parametrize(("tfloat32", "during"), [(False, "ieee"), (True, "tf32")])
def test_products_are_as_asked_for_a_while(tfloat32: bool, during: str) -> None:
    """For matrix products, convolutions and recurrent layers alike; afterwards as before, whatever happened."""
    before = flags()
    with float32_products(torch.device("cuda"), tfloat32=tfloat32):
        assert flags() == [during] * 3
    assert flags() == before
    with pytest.raises(ZeroDivisionError), float32_products(torch.device("cuda"), tfloat32=tfloat32):
        _ = 1 / 0
    assert flags() == before
    with float32_products(torch.device("cpu"), tfloat32=tfloat32):
        assert flags() == before
