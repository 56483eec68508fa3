"""A network's passes translated by torch.compile."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

Compile = Literal["off", "on", "cuda_graphs"]
BACKEND = "inductor"
COMPILERS: Mapping[str, tuple[str, tuple[str, ...]]] = {"cpu": ("CXX", ("g++",)), "cuda": ("CC", ("gcc", "clang"))}
"""What inductor, and Triton on a GPU, translate with: the variable that names a compiler, and those found without."""


def compile_network(network: nn.Module, how: Compile, device: torch.device) -> None:
    """Has calls of the network, and their way back, translated when they first happen.

    It stays the same object with the same weights; `eagerly` calls it as it was.

    Raises:
        ValueError: CUDA graphs were asked for elsewhere than on a GPU, or this machine has no compiler.
    """
    if how == "cuda_graphs" and device.type != "cuda":
        raise ValueError(f"train.compile: cuda_graphs needs a GPU, got the device {device.type}")
    if how == "off":
        return
    variable, usual = COMPILERS[device.type]
    wanted = (os.environ[variable],) if variable in os.environ else usual
    if BACKEND == "inductor" and not any(map(shutil.which, wanted)):
        rule = f"need off, or {' or '.join(wanted)} on the machine that trains ({variable} may name another compiler)"
        raise ValueError(f"train.compile: {rule}; got {how}, and no compiler on {platform.node()}")

    def call(*args: Any) -> Any:
        return network._call_impl(*args)  # type: ignore[no-untyped-call]  # torch's own

    # As `nn.Module.compile` does, but from a function that is not torch's: torch.compile passes over torch's own, and
    # would leave a network that is an nn.Sequential as it is.
    mode = "reduce-overhead" if how == "cuda_graphs" else None
    network._compiled_call_impl = torch.compile(call, backend=BACKEND, dynamic=False, mode=mode)


def eagerly(how: Compile) -> AbstractContextManager[None]:
    """While it lasts, nothing is translated: other shapes and modes than training's would be, each for seconds."""
    if how == "off":
        return nullcontext()  # torch's own would take a second to import what translates
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance
