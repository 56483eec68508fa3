"""What a model and its training cost: parameters, multiply-adds, memory; and which convolutions it is made of."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.convolutions import Convolution
from trainables.same_convolution import only_shapes

FORWARD_PASSES, FORWARD_SECONDS = 5, 0.5


def parameters(model: nn.Module) -> int:
    """How many numbers the model's parameters hold, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


@final
@dataclass(frozen=True, slots=True)
class Survey:
    """What happens in one image's forward pass."""

    multiply_adds: int
    """Of convolutions (as if computed directly, in whatever form they are), matrix products and recurrent layers."""
    convolutions: tuple[Convolution, ...]


def survey(model: nn.Module, input_shape: tuple[int, int, int]) -> Survey:
    """Runs the model on one image and notes what it does."""
    example = torch.zeros(1, *input_shape, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), only_shapes(), _Counter() as counter:
        model(example)
    model.train(was_training)
    return Survey(counter.multiply_adds, tuple(counter.convolutions))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator that a model runs; torch's own counter leaves out recurrent layers on the CPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = 0
        self.convolutions: list[Convolution] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: what it takes to skip it would be imported first, and there is none here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in _COUNTS:
            self.multiply_adds += _COUNTS[name](args, result)
        if name == "convolution":
            inputs, weight, stride = args[0], args[1], args[3]
            kernel = tuple(weight.shape[2:])
            rows, columns = inputs.shape[-2:]
            self.convolutions.append(Convolution(rows, columns, inputs.shape[1], kernel, tuple(stride)))
        return result


def _convolution(args: Any, result: Tensor) -> int:
    weight, transposed = args[1], args[6]
    # Each output (of a transposed convolution: each input) meets the weights of one channel.
    met: Tensor = args[0] if transposed else result
    return met.numel() * int(weight[0].numel())


def _product(left: Tensor, right: Tensor) -> int:
    return left.numel() * right.shape[-1]


_COUNTS: dict[str, Callable[[Any, Any], int]] = {
    "convolution": _convolution,
    "mm": lambda args, _: _product(args[0], args[1]),
    "bmm": lambda args, _: _product(args[0], args[1]),
    "addmm": lambda args, _: _product(args[1], args[2]),
    "baddbmm": lambda args, _: _product(args[1], args[2]),
    # One layer and direction of an LSTM on the CPU: every row of its input and of its state meets all weights.
    "mkldnn_rnn_layer": lambda args, _: args[0].numel() // args[1].shape[1] * (args[1].numel() + args[2].numel()),
}


def forward_seconds(model: nn.Module, example: Tensor) -> float:
    """The median time of up to 5 forward passes, of as many as half a second holds; a first one is not counted."""
    was_training = model.training
    model.eval()
    times: list[float] = []
    with torch.inference_mode():
        while not times or (len(times) <= FORWARD_PASSES and sum(times) < FORWARD_SECONDS):
            _wait_for(example.device)
            started = time.perf_counter()
            model(example)
            _wait_for(example.device)
            times.append(time.perf_counter() - started)
    model.train(was_training)
    return statistics.median(times[1:] or times)


def gpu_utilization(device: torch.device) -> float | None:
    """The share of the last moments in which the GPU was busy, whoever kept it so; None: nobody here can tell."""
    if device.type != "cuda":
        return None
    try:
        return torch.cuda.utilization(device) / 100
    except (ImportError, RuntimeError):  # NVML is not installed, or does not answer
        return None


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Peak memory counts from here, where the system can (a GPU; Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets the peak to what is resident now


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on the GPU, or that the process held on the CPU, since the reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
