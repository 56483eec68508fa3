"""How much faster does a contour network train than its straightforward port, with which gradients?

    python benchmarks/contour_training.py    # softplus hGRU: 8 steps, 25 channels, 15x15 kernels, 8 images of 150x150

The peer is the published network as one writes it down: direct float32 convolutions over NCHW tensors, eager. Both have
the same weights and see the same images. A training step is the forward pass through all steps of the circuit, the
loss, the backward pass and Adam's update. The variants take turns in one process, so that a disturbance of the machine
meets them all, under the allocator setting of a trial. CPU seconds are beside wall seconds because the machine may be
shared; then run it with OMP_WAIT_POLICY=passive, or threads that wait for each other count as work.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.recorded import record
from trainables.allocator import keep_freed_memory
from trainables.models.contour_rnn.config import ContourRNNConfig
from trainables.models.contour_rnn.ends import GaborDrive, PixelReadout
from trainables.models.contour_rnn.network import ContourRNN
from trainables.models.contour_rnn.softplus_hgru import SoftplusHGRU
from trainables.tasks import Segmentation
from trainables.train_config import TrainConfig

VARIANTS = ("peer", "float32", "mixed")
EPSILON = 1e-3


def peer_outputs(model: ContourRNN, images: Tensor) -> Tensor:
    """The network's outputs as the papers' equations say them, one torch call after the other."""
    drive, cell, readout = model.drive, model.cell, model.readout
    assert isinstance(drive, GaborDrive)
    assert isinstance(cell, SoftplusHGRU)
    assert isinstance(readout, PixelReadout)
    inhibit, excite = ((kernel.weight + kernel.weight.transpose(0, 1)) / 2 for kernel in cell.kernels)
    half = inhibit.shape[-1] // 2
    x = functional.conv2d(images, drive.weight, drive.bias, padding=3) ** 2
    h = torch.zeros_like(x)
    plus = functional.softplus
    for _ in range(model.steps):
        g1 = torch.sigmoid(functional.conv2d(h, cell.gates[0], cell.gate_biases[0]))
        c1 = functional.conv2d(h * g1, inhibit, padding=half)
        c1 = _normalised(c1, cell.norms[1])
        h1 = plus(x - plus(c1 * (cell.alpha * h + cell.mu)))
        g2 = torch.sigmoid(functional.conv2d(h1, cell.gates[1], cell.gate_biases[1]))
        c2 = _normalised(functional.conv2d(h1, excite, padding=half), cell.norms[3])
        h2 = plus(cell.kappa * h1 + cell.gamma * c2 + cell.omega * h1 * c2)
        h = plus((1 - g2) * h + g2 * h2)
    return readout.maps(_normalised(h, readout.norm))


def _normalised(maps: Tensor, norm: Any) -> Tensor:
    return functional.batch_norm(maps, None, None, norm.weight[0], norm.bias[0], training=True, eps=EPSILON)


class Variant:
    """One way to train the same network."""

    def __init__(self, name: str, config: ContourRNNConfig, model: ContourRNN) -> None:
        self.name, self.config, self.model = name, config, copy.deepcopy(model)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def gradients(self, images: Tensor, targets: Tensor) -> list[Tensor]:
        """Of the loss by every weight."""
        self._backward(images, targets)
        return [parameter.grad.clone() for parameter in self.optimizer.param_groups[0]["params"]]

    def step(self, images: Tensor, targets: Tensor) -> tuple[float, float]:
        """Wall and CPU seconds of a training step."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._backward(images, targets)
        self.optimizer.step()
        return time.perf_counter() - wall, time.process_time() - cpu

    def _backward(self, images: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad()
        task = Segmentation()
        if self.name == "peer":
            task.loss(peer_outputs(self.model, images), targets).backward()
            return
        with torch.autocast("cpu", torch.bfloat16, enabled=self.name == "mixed"):
            learned = self.config.training_loss(
                self.model, images, targets, task=task, train=TrainConfig(), progress=0.0
            )
        learned.loss.backward()


def compare(reference: list[Tensor], ours: list[Tensor]) -> dict[str, float]:
    """How far our gradients are from the peer's."""
    one, other = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (reference, ours))
    apart = [float((a - b).norm() / a.norm()) for a, b in zip(reference, ours, strict=True)]
    return {
        "cosine": float(functional.cosine_similarity(one.double(), other.double(), dim=0)),
        "relative_error": float((one - other).norm() / one.norm()),
        "largest_relative_error_of_a_tensor": max(apart),
    }


def main() -> None:
    """Takes turns, prints the table and writes benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="of a batch")
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--steps", type=int, default=8, help="of the circuit")
    parser.add_argument("--kernel", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    config = ContourRNNConfig(kernel=arguments.kernel, steps=arguments.steps, readout="pixels")
    model = config.build(input_shape=(1, arguments.size, arguments.size), outputs=2)
    images = (torch.rand(arguments.images, 1, arguments.size, arguments.size) > 0.95).float()
    targets = (torch.rand(arguments.images, arguments.size, arguments.size) > 0.99).long()
    variants = {name: Variant(name, config, model) for name in VARIANTS}
    first = {name: variant.gradients(images, targets) for name, variant in variants.items()}  # warms up as well
    agreement = {name: compare(first["peer"], first[name]) for name in VARIANTS[1:]}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    for _ in range(arguments.rounds):
        for name, variant in variants.items():
            seconds[name].append(variant.step(images, targets))
    report(arguments, seconds, agreement)


def report(
    arguments: argparse.Namespace, seconds: dict[str, list[tuple[float, float]]], agreement: dict[str, dict[str, float]]
) -> None:
    """Prints the table and writes the results."""
    summary: dict[str, Any] = {}
    peer = statistics.median(cpu for _, cpu in seconds["peer"])
    for name, samples in seconds.items():
        wall, cpu = zip(*samples, strict=True)
        summary[name] = {
            "wall_seconds": {"median": statistics.median(wall), "range": [min(wall), max(wall)]},
            "cpu_seconds": {"median": statistics.median(cpu), "range": [min(cpu), max(cpu)]},
            "times_faster_by_cpu": peer / statistics.median(cpu),
            "times_faster_by_wall": statistics.median(one for one, _ in seconds["peer"]) / statistics.median(wall),
            "gradients_against_peer": agreement.get(name),
        }
        faster = summary[name]["times_faster_by_cpu"], summary[name]["times_faster_by_wall"]
        print(
            f"{name:8} wall {statistics.median(wall):7.2f} s  CPU {statistics.median(cpu):7.2f} s  "
            f"{faster[0]:5.1f} times faster by CPU, {faster[1]:5.1f} by wall  {agreement.get(name, '')}"
        )
    content = {"arguments": vars(arguments), "variants": summary, "n": arguments.rounds, "threads": arguments.threads}
    record("contour_training", content, packages=("torch",))


if __name__ == "__main__":
    main()
