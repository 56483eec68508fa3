"""The number format of convolutions and matrix products in training; weights, losses and updates stay float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from trainables.convolutions import Convolution, bfloat16_is_safe

Precision = Literal["auto", "float32", "bfloat16"]


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
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return safe and bool(has.get("avx512_bf16") or has.get("amx_bf16"))
