"""How many images a second does training see: the training core, beside the loop that a competent user would write.

    python benchmarks/training_throughput.py                        # nRN18, 2 threads, on the CPU
    python benchmarks/training_throughput.py --device cuda --images 50000 --model RN18

The data are scikit-learn's digits enlarged to 150 x 150, so that both loops can also be held to what they learn: the
last epoch's test accuracy is in the results beside the speed. Every run is a process of its own; the variants take
turns, a seed a round, so that a disturbance of the machine meets them all. The first epoch warms up and is not timed.

Beside the speed by the clock stands the one by processor time, that of DataLoader's workers included: it holds on a
machine that does other work at the time. `auto` is left out where it is float32 (no bfloat16 instructions), and
torch.compile, which takes minutes to start, unless `--compiled` asks for it.

The peer is a DataLoader over the same memory-mapped pixels (shuffled, last batch dropped, worker processes that stay),
float32, NCHW, eager, Adam; with two workers and with none, since on few cores they compete with the training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from trainables.allocator import keep_freed_memory
from trainables.compiled import eagerly
from trainables.data.dataset import Dataset, Split
from trainables.data.digits import Digits
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.precision import has_bfloat16
from trainables.training import Training
from trainables.trial import TrainConfig, TrialConfig

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SIZE, BATCH, LEARNING_RATE = 150, 196, 1e-3
MODELS = {"nRN18": (16, 32, 32, 32), "RN18": (64, 128, 256, 512)}
LOAD_BEFORE = os.getloadavg()[0]  # of other work: what was measured on a busy machine must not pass for a quiet one
VARIANTS: dict[str, dict[str, Any]] = {
    "peer, 2 workers": {"workers": 2},
    "peer, no worker": {"workers": 0},
    "core": {"precision": "auto"},
    "core, float32": {"precision": "float32"},
    "core, compiled": {"precision": "auto", "compile": "on"},
}


def variants(device: torch.device, *, compiled: bool) -> list[str]:
    """Those that differ on this machine."""
    left_out = {*([] if has_bfloat16(device) else ["core, float32"]), *([] if compiled else ["core, compiled"])}
    return [variant for variant in VARIANTS if variant not in left_out]


def cpu_seconds() -> float:
    """Processor time of this process and of those that it started and that still run."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in [own, *own.children(recursive=True)])


class Pixels(TorchDataset[tuple[Tensor, int]]):
    """A split as a user's dataset: one normalised image at a time."""

    def __init__(self, split: Split, mean: float, std: float) -> None:
        self.split, self.mean, self.std = split, mean, std

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.tensor(self.split.images[index], dtype=torch.float32)
        return (image / 255 - self.mean) / self.std, int(self.split.targets[index])


def train_peer(
    dataset: Dataset, model: str, epochs: int, device: torch.device, *, workers: int, seed: int
) -> tuple[list[tuple[float, float]], float]:
    """Images a second in each epoch, by the clock and by processor time, and the test accuracy after the last."""
    torch.manual_seed(seed)
    (mean,), (std,) = dataset.preprocessing.mean, dataset.preprocessing.std
    module = NarrowResNetConfig(channels=MODELS[model]).build(input_shape=(1, SIZE, SIZE), outputs=10).to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    loss_of = torch.nn.CrossEntropyLoss()
    loader = DataLoader(
        Pixels(dataset.train, mean, std),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    speeds = []
    for _ in range(epochs):
        module.train()
        started, busy, seen = time.perf_counter(), cpu_seconds(), 0
        for pixels, targets in loader:
            x, y = pixels.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = loss_of(module(x), y)
            loss.backward()
            optimizer.step()
            seen += len(x)
        loss.item()  # waits for a GPU
        speeds.append((seen / (time.perf_counter() - started), seen / (cpu_seconds() - busy)))
    module.eval()
    right = 0
    with torch.inference_mode():
        for pixels, targets in DataLoader(Pixels(dataset.test, mean, std), batch_size=BATCH):
            right += int((module(pixels.to(device)).argmax(1).cpu() == targets).sum())
    return speeds, right / len(dataset.test)


def train_core(
    dataset: Dataset, model: str, epochs: int, device: torch.device, *, seed: int, **options: Any
) -> tuple[list[tuple[float, float]], float]:
    """The same of `trainables.training`; accuracy with the last weights, as the peer's.

    Its processor time includes that of validation, on one image: as good as none.
    """
    if device.type == "cpu":
        keep_freed_memory()  # as `trainables.trainable` does in every trial
    config = TrialConfig(
        family="narrow_resnet",
        model=NarrowResNetConfig(channels=MODELS[model]),
        train=TrainConfig(batch_size=BATCH, max_epochs=epochs + 1, learning_rate=LEARNING_RATE, seed=seed, **options),
        data=Digits(image_size=SIZE),
    )
    one = Split(dataset.validation.images[:1], dataset.validation.targets[:1])
    training = Training(config, dataclasses.replace(dataset, validation=one), device=device)
    speeds = []
    for _ in range(epochs):  # one less than max_epochs, so that the test of the last is not in the time
        busy = cpu_seconds()
        seen = len(dataset.train) // BATCH * BATCH
        speed = training.advance()["images_per_second"]
        speeds.append((speed, seen / (cpu_seconds() - busy)))
    training.model.eval()
    with torch.inference_mode(), eagerly(config.train.compile):
        inputs = dataset.preprocessing.normalize(torch.tensor(dataset.test.images).to(device))
        chosen = training.model(inputs).argmax(1).cpu()
    return speeds, float((chosen == torch.tensor(dataset.test.targets)).double().mean())


def run_one(arguments: argparse.Namespace) -> dict[str, Any]:
    """One training of one variant, in this process."""
    torch.set_num_threads(arguments.threads)
    dataset = Digits(image_size=SIZE).load(arguments.data)
    if arguments.images is not None:
        rows = np.arange(arguments.images) % len(dataset.train)
        train = Split(dataset.train.images[rows], dataset.train.targets[rows])
        dataset = dataclasses.replace(dataset, train=train)
    run = train_peer if arguments.one.startswith("peer") else train_core
    device = torch.device(arguments.device)
    speeds, accuracy = run(
        dataset, arguments.model, arguments.epochs, device, seed=arguments.seed, **VARIANTS[arguments.one]
    )
    clock, busy = zip(*speeds[1:], strict=True)
    return {
        "variant": arguments.one,
        "seed": arguments.seed,
        "images_per_second": clock,
        "images_per_cpu_second": busy,
        "accuracy": accuracy,
    }


def main() -> None:
    """Takes turns, prints the table and writes benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="nRN18")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="seeds")
    parser.add_argument("--images", type=int, help="an epoch; more than the digits' repeats them")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments)))
        return
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        Digits(image_size=SIZE).load(Path(folder))
        for seed in range(arguments.rounds):
            for variant in variants(torch.device(arguments.device), compiled=arguments.compiled):
                runs.append(_in_own_process(arguments, variant, seed, Path(folder)))
                speed, busy = (
                    statistics.median(runs[-1][name]) for name in ("images_per_second", "images_per_cpu_second")
                )
                print(f"round {seed + 1}: {variant}: {speed:,.0f} images/s, {busy:,.0f} a CPU second", flush=True)
    _report(arguments, runs)


def _in_own_process(arguments: argparse.Namespace, variant: str, seed: int, data: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", variant, "--seed", str(seed), "--data", str(data)]
    for name in ("model", "device", "threads", "epochs", "images"):
        if getattr(arguments, name) is not None:
            command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _report(arguments: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    print(f"\n{arguments.model}, {SIZE}x{SIZE}, batches of {BATCH}, {arguments.threads} threads, {arguments.device}")
    print(f"{'variant':18} {'images/s: median':>17} {'(quartiles)':>17} {'a CPU second':>17} {'n':>4} {'accuracy':>16}")
    summary = {}
    for variant in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == variant]
        summary[variant] = {name: _summary(own, name) for name in ("images_per_second", "images_per_cpu_second")}
        accuracies = [run["accuracy"] for run in own]
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else None
        summary[variant]["accuracy"] = {"mean": statistics.mean(accuracies), "std": spread, "n": len(accuracies)}
        clock, busy = summary[variant]["images_per_second"], summary[variant]["images_per_cpu_second"]
        low, high = clock["quartiles"]
        told = f"{statistics.mean(accuracies):.3f}" + ("" if spread is None else f" +- {spread:.3f}")
        print(f"{variant:18} {clock['median']:17,.0f} {f'({low:,.0f}, {high:,.0f})':>17} {busy['median']:17,.0f} "
              f"{clock['n']:4} {told:>16}")  # fmt: skip
    ratios = {}
    for name in ("images_per_second", "images_per_cpu_second"):
        medians = {variant: of_it[name]["median"] for variant, of_it in summary.items()}
        best = max((variant for variant in medians if variant.startswith("peer")), key=medians.__getitem__)
        ratios[name] = {"core_over_best_peer": medians["core"] / medians[best], "best_peer": best}
        print(f"{name}: core / best peer ({best}): {ratios[name]['core_over_best_peer']:.2f}")
    path = RESULTS / f"training_throughput_{arguments.model}_{arguments.device}.json"
    path.parent.mkdir(exist_ok=True)
    content = {
        "question": "images a second in training, the core beside a DataLoader loop",
        "settings": {name: getattr(arguments, name) for name in ("model", "device", "threads", "epochs", "rounds")}
        | {"image_size": SIZE, "batch_size": BATCH, "images": arguments.images or Digits().train},
        "summary": summary,
        "ratios": ratios,
        "runs": runs,
        "made": _circumstances(arguments.device),
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


def _summary(runs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    speeds = [speed for run in runs for speed in run[name]]
    low, median, high = statistics.quantiles(speeds, n=4)
    return {"median": median, "quartiles": [low, high], "max": max(speeds), "n": len(speeds)}


def _circumstances(device: str) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT)
    changed = subprocess.run(["git", "status", "--porcelain", "trainables"], check=False, capture_output=True, cwd=ROOT)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout else ""),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": torch.cpu.get_capabilities()["cpu_name"],
        "bfloat16_instructions": bool(torch.cpu.get_capabilities().get("avx512_bf16")),
        "cores": torch.cpu.get_capabilities()["num_physical_cores"],
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "load_before": LOAD_BEFORE,
    }


if __name__ == "__main__":
    main()
