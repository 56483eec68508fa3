"""How does the memory of a training step grow with the steps of the circuit, under each learning rule?

    python benchmarks/rbp_memory.py                 # softplus hGRU, 25 channels, 15x15 kernels, 4 images of 64x64

A training step is the forward pass, the loss, the backward pass and Adam's update. Every number of steps and every rule
is a process of its own, whose peak resident memory during a second training step is read, less what was resident before
the first: the network's activations, gradients and optimizer state, and nothing of torch itself. Written are the curve
(rbp_memory.png) and the numbers (rbp_memory.json).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import psutil
import torch
from matplotlib.figure import Figure

from benchmarks.recorded import ROOT, record
from trainables.cost import peak_memory, reset_peak_memory
from trainables.models.contour_rnn.config import ContourRNNConfig
from trainables.tasks import Segmentation
from trainables.train_config import TrainConfig

RESULTS = ROOT / "benchmarks" / "results"
RULES = {"bptt": "BPTT", "c_bptt": "C-BPTT", "rbp": "RBP", "c_rbp": "C-RBP"}
COLOURS = {"bptt": "tab:blue", "c_bptt": "tab:cyan", "rbp": "tab:orange", "c_rbp": "tab:red"}
STYLES = {"bptt": "-", "c_bptt": "--", "rbp": "--", "c_rbp": "-"}
MIB = 2**20


def measure(rule: str, steps: int, arguments: argparse.Namespace) -> dict[str, float]:
    """One training step's memory and time, in this process."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device("cpu")
    config = ContourRNNConfig.from_dict({"kernel": arguments.kernel, "steps": steps, "rule": rule, "readout": "pixels"})
    model = config.build(input_shape=(1, arguments.size, arguments.size), outputs=2)
    optimizer = torch.optim.Adam(one for one in model.parameters() if one.requires_grad)
    images = (torch.rand(arguments.images, 1, arguments.size, arguments.size) > 0.95).float()
    targets = (torch.rand(arguments.images, arguments.size, arguments.size) > 0.99).long()
    before = psutil.Process().memory_info().rss
    for _ in range(2):
        reset_peak_memory(device)
        started = time.process_time()
        optimizer.zero_grad()
        learned = config.training_loss(model, images, targets, task=Segmentation(), train=TrainConfig(), progress=0.0)
        learned.loss.backward()
        optimizer.step()
    return {"mib": (peak_memory(device) - before) / MIB, "cpu_seconds": time.process_time() - started}


def main() -> None:
    """Measures, draws the curve and writes benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--kernel", type=int, default=15)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 3, 6, 10, 20, 30, 40])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs=2, metavar=("RULE", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), arguments)))
        return
    curves: dict[str, dict[int, dict[str, float]]] = {rule: {} for rule in RULES}
    for steps in arguments.steps:
        for rule in RULES:
            curves[rule][steps] = in_own_process(rule, steps, arguments)
            print(f"{RULES[rule]:7} {steps:3} steps: {curves[rule][steps]['mib']:8.0f} MiB", flush=True)
    write(arguments, curves)


def in_own_process(rule: str, steps: int, arguments: argparse.Namespace) -> dict[str, float]:
    """What `measure` says in a process in which nothing else has been."""
    command = [sys.executable, __file__, "--one", rule, str(steps)]
    for name in ("images", "size", "kernel", "threads"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write(arguments: argparse.Namespace, curves: dict[str, dict[int, dict[str, float]]]) -> None:
    """The picture and the numbers."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for rule, curve in curves.items():
        values = [one["mib"] for one in curve.values()]
        axes.plot(list(curve), values, STYLES[rule], color=COLOURS[rule], marker="o", ms=4, label=RULES[rule])
    axes.set_xlabel("steps of the circuit")
    axes.set_ylabel("peak memory of a training step (MiB)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(RESULTS / "rbp_memory.png", dpi=120, metadata={"Software": None})
    given = {name: value for name, value in vars(arguments).items() if name != "one"}
    record("rbp_memory", {"arguments": given, "n": 1, "curves": curves}, packages=("torch",))


if __name__ == "__main__":
    main()
