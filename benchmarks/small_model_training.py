"""How long is an epoch of a small model: the training core beside a plain loop, and several seeds stacked in one model?

    python benchmarks/small_model_training.py

Six networks of the spatial RNNs' table 4.3 on 500 digits of 28 x 28 pixels in batches of 16, plain SGD. The plain loop
is what a user would write: a DataLoader over a data set that normalises an image at a time, eager, the loss and the
number of right answers read after each batch; also with the data normalised beforehand (a TensorDataset). "Arithmetic"
is what no loop can avoid with torch's kernels: forward and backward passes and updates on batches that are ready, and
nothing else. All variants take turns in one process. Processor time tells what a step costs where trials share cores,
and other work on the machine disturbs it least; wall time is beside it. `--threads 2` is for a machine that does
nothing else: there torch's threads wait for each other.

Stacked: the same seeds trained one after another and as one model whose layers are batches of matrices (an LSTM's four
directions too, which takes square images), both in a plain loop over normalised data. Are the weights the same bits?
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from benchmarks.peers.pixels import Pixels
from trainables.allocator import keep_freed_memory
from trainables.data.dataset import Dataset
from trainables.training import Training
from trainables.trial import TrialConfig

ROOT = Path(__file__).parents[1]
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "1MLP fc": {"depth": 1, "layer": "fc"},
    "1MLP lstm": {"depth": 1},
    "2MLP fc": {"reshape": [36, 36], "layer": "fc"},
    "2MLP lstm": {"reshape": [36, 36]},
    "CNN fc": {"network": "cnn", "layer": "fc"},
    "CNN lstm": {"network": "cnn"},
}
BATCH, RATE = 16, 0.1
Cost = tuple[float, float]
"""Seconds of wall time and of processor time."""


def trial_of(network: str, seed: int = 0) -> TrialConfig:
    """The trial of a network; hardly anything is validated, so that a step is nearly all training."""
    train = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": RATE, "batch_size": BATCH, "precision": "float32"}
    data = {"name": "digits", "image_size": 28, "train": 500, "validation": 1, "test": 1}
    return TrialConfig.from_dict(
        {
            "family": "spatial_rnn",
            "model": NETWORKS[network],
            "train": {**train, "seed": seed},
            "data": data,
        }
    )


def normalized(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """All training images as inputs, and their classes."""
    inputs = dataset.preprocessing.normalize(torch.tensor(dataset.train.images))
    return inputs, torch.tensor(dataset.train.targets)


def build(network: str, seed: int) -> nn.Module:
    """A network with initial weights of its own."""
    torch.manual_seed(seed)
    return trial_of(network).model.build(input_shape=(1, 28, 28), outputs=10)


def core(network: str, dataset: Dataset) -> Callable[[], object]:
    """An epoch of ours."""
    training = Training(trial_of(network), dataset, device=torch.device("cpu"))
    return training.advance


def arithmetic(network: str, dataset: Dataset) -> Callable[[], object]:
    """An epoch of passes and updates alone."""
    model = build(network, 0)
    inputs, classes = normalized(dataset)
    batches = list(zip(inputs[:496].split(BATCH), classes[:496].split(BATCH), strict=True))
    parameters = list(model.parameters())

    def epoch() -> None:
        for images, wanted in batches:
            _descend(parameters, functional.cross_entropy(model(images), wanted))

    return epoch


def plain(network: str, dataset: Dataset, *, tensors: bool) -> Callable[[], object]:
    """An epoch of the plain loop."""
    model = build(network, 0)
    (mean,), (std,) = dataset.preprocessing.mean, dataset.preprocessing.std
    data: TorchDataset[Any] = TensorDataset(*normalized(dataset)) if tensors else Pixels(dataset.train, mean, std)
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def epoch() -> float:
        total = right = 0.0
        for images, classes in loader:
            optimizer.zero_grad()
            outputs = model(images)
            loss = functional.cross_entropy(outputs, classes)
            loss.backward()
            optimizer.step()
            total += loss.item()
            right += (outputs.argmax(1) == classes).sum().item()
        return total + right

    return epoch


def one_by_one(network: str, dataset: Dataset, seeds: int) -> tuple[Callable[[], None], list[nn.Module]]:
    """An epoch of each of several models after another, over the same batches."""
    models = [build(network, seed) for seed in range(seeds)]
    inputs, classes = normalized(dataset)

    def epoch() -> None:
        for model in models:
            parameters = list(model.parameters())
            for images, wanted in zip(*(some.split(BATCH) for some in (inputs[:496], classes[:496])), strict=True):
                loss = functional.cross_entropy(model(images), wanted)
                _descend(parameters, loss)

    return epoch, models


def stacked(network: str, dataset: Dataset, seeds: int) -> tuple[Callable[[], None], dict[str, Tensor]]:
    """An epoch of the same models as one: every parameter has an axis of models in front."""
    models = [build(network, seed) for seed in range(seeds)]
    names = [name for name, _ in models[0].named_parameters()]
    weights = {name: torch.stack([m.get_parameter(name).detach() for m in models]).requires_grad_() for name in names}
    inputs, classes = normalized(dataset)
    hidden = _sweep if network == "1MLP lstm" else _connect

    def epoch() -> None:
        for images, wanted in zip(*(some.split(BATCH) for some in (inputs[:496], classes[:496])), strict=True):
            outputs = _linear(hidden(images, weights), weights, "head.1")
            losses = functional.cross_entropy(outputs.flatten(0, 1), wanted.repeat(seeds), reduction="none")
            _descend(list(weights.values()), losses.view(seeds, -1).mean(dim=1).sum())

    return epoch, weights


def _descend(parameters: list[Tensor], loss: Tensor) -> None:
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        torch._foreach_add_(parameters, list(gradients), alpha=-RATE)


def _linear(values: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    return torch.baddbmm(weights[f"{name}.bias"].unsqueeze(1), values, weights[f"{name}.weight"].transpose(1, 2))


def _connect(images: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    seeds = len(weights["head.1.bias"])
    return torch.relu(_linear(images.flatten(1).expand(seeds, -1, -1), weights, "fc1.1"))


def _sweep(images: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """The last hidden states of a four-directional LSTM over square images, `[seeds, n, 4 * hidden]`."""
    rows = images.squeeze(1).transpose(0, 1)  # [steps, n, numbers a step]
    columns = images.squeeze(1).permute(2, 0, 1)
    read = torch.stack([rows, rows.flip(0), columns, columns.flip(0)])
    directions = [f"rnn.{way}.unit" for way in ("rows", "columns")]

    def all_four(kind: str) -> Tensor:
        return torch.stack([weights[f"{at}.{kind}_l0{end}"] for at in directions for end in ("", "_reverse")], dim=1)

    steps, n, size = read.shape[1:]
    into, through = all_four("weight_ih"), all_four("weight_hh").flatten(0, 1).transpose(1, 2)
    seeds, gates = len(into), into.shape[2]
    bias = (all_four("bias_ih") + all_four("bias_hh")).view(seeds * 4, 1, gates)
    repeated = read.expand(seeds, -1, -1, -1, -1).reshape(seeds * 4, steps * n, size)
    before = torch.baddbmm(bias, repeated, into.flatten(0, 1).transpose(1, 2)).view(seeds * 4, steps, n, gates)
    hidden = cell = torch.zeros(seeds * 4, n, gates // 4)
    for step in range(steps):
        keep, forget, new, out = torch.baddbmm(before[:, step], hidden, through).chunk(4, dim=2)
        cell = forget.sigmoid() * cell + keep.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
    return hidden.view(seeds, 4, n, -1).transpose(1, 2).flatten(2)


def timed(epoch: Callable[[], object]) -> Cost:
    """What an epoch costs."""
    wall, processor = time.perf_counter(), time.process_time()
    epoch()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(dataset: Dataset, epochs: int, threads: int) -> dict[str, dict[str, Any]]:
    """Every network's variants, by turns."""
    found: dict[str, dict[str, Any]] = {}
    torch.set_num_threads(threads)
    for network in NETWORKS:
        variants: dict[str, Callable[[], object]] = {
            "core": core(network, dataset),
            "plain": plain(network, dataset, tensors=False),
            "plain, normalised before": plain(network, dataset, tensors=True),
            "arithmetic": arithmetic(network, dataset),
        }
        costs: dict[str, list[Cost]] = defaultdict(list)
        for epoch in variants.values():
            epoch()  # warms up
        for _ in range(epochs):
            for name, epoch in variants.items():
                costs[name].append(timed(epoch))
        found[network] = {name: _summary(costs[name]) for name in variants}
        print(network, json.dumps({name: round(one["cpu"]["median"] * 1e3, 1) for name, one in found[network].items()}))
    torch.set_num_threads(1)
    return found


def compare_stacked(dataset: Dataset, epochs: int) -> dict[str, Any]:
    """One by one and stacked, by turns, on one thread."""
    found = {}
    for network in ("1MLP fc", "1MLP lstm"):
        for seeds in (3, 8):
            apart, models = one_by_one(network, dataset, seeds)
            together, weights = stacked(network, dataset, seeds)
            turns = [(timed(apart), timed(together)) for _ in range(epochs + 1)]
            one, other = (_summary([turn[side] for turn in turns[1:]]) for side in (0, 1))
            differences = [
                float((model.get_parameter(name).detach() - weights[name][seed].detach()).abs().max())
                for seed, model in enumerate(models)
                for name in weights
            ]
            found[f"{network}, {seeds} seeds"] = {
                "one_by_one": one,
                "stacked": other,
                "times_faster": one["cpu"]["median"] / other["cpu"]["median"],
                "epochs": epochs + 1,
                "same_bits": max(differences) == 0,
                "largest_difference": max(differences),
            }
            print(f"{network}, {seeds} seeds stacked", json.dumps(found[f"{network}, {seeds} seeds"]["times_faster"]))
    return found


def _summary(costs: list[Cost]) -> dict[str, Any]:
    walls, processors = zip(*costs, strict=True)
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}
        for name, values in (("wall", walls), ("cpu", processors))
    }


def main() -> None:
    """Measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    keep_freed_memory()  # as trials do
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as root:
        dataset = trial_of("1MLP fc").data.load(Path(root))
        networks = compare(dataset, arguments.epochs, arguments.threads)
        stacks = compare_stacked(dataset, arguments.epochs)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT)
    content = {
        "question": "seconds of an epoch of 500 images in batches of 16, the core beside a plain loop",
        "threads": arguments.threads,
        "networks": networks,
        "stacked": stacks,
        "made": {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit.stdout.strip(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": torch.cpu.get_capabilities()["cpu_name"],
            "cores": len(os.sched_getaffinity(0)),
            "load_average_before_and_after": [list(load_before), list(os.getloadavg())],
        },
    }
    path = ROOT / "benchmarks" / "results" / "small_model_training.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
