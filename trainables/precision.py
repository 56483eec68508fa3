"""The number format of convolutions and matrix products in training; weights, losses and updates stay float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from trainables.convolutions import Convolution, bfloat16_is_safe

Precision = Literal["auto", "float32", "tfloat32", "bfloat16"]


def uses_bfloat16(precision: Precision, device: torch.device, convolutions: Sequence[Convolution]) -> bool:
    """Whether a model made of these convolutions trains under bfloat16 autocast on the device.

    `auto` says yes where the hardware has bfloat16 instructions (what torch offers elsewhere is slower than float32)
    and its gradients are right; benchmarks/training_throughput.py measures what that brings.

    Raises:
        ValueError: bfloat16 was asked for where its gradients are wrong.
    """
    safe = device.type != "cpu" or bfloat16_is_safe(convolutions)
    if precision == "bfloat16" and not safe:
        raise ValueError(
            "train.precision: bfloat16 has wrong gradients on the CPU for images that the model makes narrower than "
            "a stride of its convolutions; need auto, float32 or larger images"
        )
    return safe and has_bfloat16(device) if precision == "auto" else precision == "bfloat16"


def has_bfloat16(device: torch.device) -> bool:
    """The device has instructions for bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


@contextmanager
def float32_products(device: torch.device, *, tfloat32: bool = False) -> Iterator[None]:
    """While it lasts, a GPU multiplies float32 numbers whole, or with `tfloat32` 10 leading bits of their fractions.

    Torch's own default is the one for matrix products and the other for convolutions.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn  # whose parts have no types
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if tfloat32 else "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
