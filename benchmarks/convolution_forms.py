"""Which form of a large convolution is faster, at which size of kernel?

    OMP_NUM_THREADS=1 python benchmarks/convolution_forms.py

A kernel is made ready, meets `--uses` batches of maps (as the steps of a circuit do), and the gradients by maps and
kernel follow. CPU milliseconds of one use, the least of some rounds in turn, on one thread, under the allocator setting
of a trial.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from benchmarks.recorded import record
from trainables.allocator import keep_freed_memory
from trainables.same_convolution import Form, fastest_form, same_convolution

FORMS: dict[str, tuple[Form, torch.memory_format, torch.dtype]] = {
    "direct, NCHW": ("direct", torch.contiguous_format, torch.float32),
    "direct, channels last": ("direct", torch.channels_last, torch.float32),
    "direct, channels last, bfloat16": ("direct", torch.channels_last, torch.bfloat16),
    "fourier": ("fourier", torch.contiguous_format, torch.float32),
}
PATIENCE = 2000
"""Milliseconds of a use beyond which the first one must do."""


def runner(
    form: Form,
    layout: torch.memory_format,
    dtype: torch.dtype,
    kernel: int,
    channels: int,
    arguments: argparse.Namespace,
) -> Callable[[], float]:
    """What gives the CPU milliseconds of one use, forwards and backwards."""
    shape = (arguments.images, channels, arguments.size, arguments.size)
    maps = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(channels, channels, kernel, kernel, requires_grad=True)
    incoming = torch.randn(shape).contiguous(memory_format=layout)

    def run() -> float:
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            ready = same_convolution(weight, arguments.size, arguments.size, form)
            made = [ready(maps) for _ in range(arguments.uses)]
        torch.autograd.grad(made, [maps, weight], [incoming.to(one.dtype) for one in made])
        return (time.process_time() - started) / arguments.uses * 1000

    return run


def main() -> None:
    """Prints the table and writes benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--uses", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", type=int, nargs="+", default=[8, 25])
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 5, 7, 9, 15])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for channels in arguments.channels:
        for kernel in arguments.kernels:
            runs = {name: runner(*form, kernel, channels, arguments) for name, form in FORMS.items()}
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(arguments.rounds + 1):
                for name, run in runs.items():
                    if not times[name] or times[name][0] < PATIENCE:
                        times[name].append(run())
            least = {name: min(values[1:] or values) for name, values in times.items()}  # the first warms up
            chosen = fastest_form(kernel, channels, torch.device("cpu"), torch.bfloat16)
            rows.append({"channels": channels, "kernel": kernel, "milliseconds": least, "chosen": chosen})
            told = "  ".join(f"{name} {value:7.1f}" for name, value in least.items())
            print(f"{channels:3} channels, {kernel:2}x{kernel:<2}: {told}  ms; chosen: {chosen}", flush=True)
    content = {"arguments": vars(arguments), "rows": rows, "n": arguments.rounds, "threads": 1}
    record("convolution_forms", content, packages=("torch",))


if __name__ == "__main__":
    main()
