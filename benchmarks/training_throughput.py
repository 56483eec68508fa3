"""How many images a second does training see: the training core, beside the loop that a competent user would write.

    python benchmarks/training_throughput.py                        # nRN18 and RN18 on the CPU, in under 10 minutes
    python benchmarks/training_throughput.py --device cuda --models RN18 --images 50000 --rounds 3

The data are scikit-learn's digits enlarged to 150 x 150, so that both loops can also be held to what they learn: the
last epoch's test accuracy is in the results beside the speed, by seed, with the difference between the two and its
standard error. Every run is a process of its own; the variants take turns, a seed a round, so that a disturbance of the
machine meets them all. The first epoch warms up and is not timed. On a CPU the wide RN18 sees few images, and its
accuracy is left out: it has not learned the task by then, and says nothing.

Beside the speed by the clock stands the one by processor time, that of DataLoader's workers included: it holds on a
machine that does other work at the time. `auto` is left out where it is float32 (no bfloat16 instructions), and
torch.compile, which takes minutes to start, unless `--compiled` asks for it.

The peer is a DataLoader over the same memory-mapped pixels (shuffled, last batch dropped, worker processes that stay),
float32, NCHW, eager, Adam; with two workers and with none, since on few cores they compete with the training. Where the
processor has bfloat16 instructions, `core` uses them in training and the peer does not; `core, float32` tells the two
causes of a difference apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader

from benchmarks.peers.pixels import Pixels
from benchmarks.recorded import ROOT, record, spread
from trainables.allocator import keep_freed_memory
from trainables.compiled import eagerly
from trainables.data.dataset import Dataset, Split
from trainables.data.digits import Digits
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.precision import has_bfloat16
from trainables.training import Training
from trainables.trial import TrainConfig, TrialConfig

SIZE, LEARNING_RATE = 150, 1e-3
MODELS = {"nRN18": (16, 32, 32, 32), "RN18": (64, 128, 256, 512)}
LENGTHS: dict[str, dict[str, Any]] = {
    "nRN18": {"batch": 196, "images": None, "epochs": 8, "rounds": 3},
    "RN18": {"batch": 64, "images": 256, "epochs": 3, "rounds": 2},
}
"""What two cores do in minutes: images an epoch (None: all), epochs with the first, seeds."""
SPEEDS = ("images_per_second", "images_per_cpu_second")
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


def train_peer(
    dataset: Dataset, model: str, epochs: int, batch: int, device: torch.device, *, workers: int, seed: int
) -> tuple[list[tuple[float, float]], float]:
    """Images a second in each epoch, by the clock and by processor time, and the test accuracy after the last."""
    torch.manual_seed(seed)
    (mean,), (std,) = dataset.preprocessing.mean, dataset.preprocessing.std
    module = NarrowResNetConfig(channels=MODELS[model]).build(input_shape=(1, SIZE, SIZE), outputs=10).to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    loss_of = torch.nn.CrossEntropyLoss()
    loader = DataLoader(
        Pixels(dataset.train, mean, std),
        batch_size=batch,
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
        for pixels, targets in DataLoader(Pixels(dataset.test, mean, std), batch_size=batch):
            right += int((module(pixels.to(device)).argmax(1).cpu() == targets).sum())
    return speeds, right / len(dataset.test)


def train_core(
    dataset: Dataset, model: str, epochs: int, batch: int, device: torch.device, *, seed: int, **options: Any
) -> tuple[list[tuple[float, float]], float]:
    """The same of `trainables.training`; accuracy with the last weights, as the peer's.

    Its processor time includes that of validation, on one image: as good as none.
    """
    if device.type == "cpu":
        keep_freed_memory()  # as `trainables.trainable` does in every trial
    config = TrialConfig(
        family="narrow_resnet",
        model=NarrowResNetConfig(channels=MODELS[model]),
        train=TrainConfig(batch_size=batch, max_epochs=epochs + 1, learning_rate=LEARNING_RATE, seed=seed, **options),
        data=Digits(image_size=SIZE),
    )
    one = Split(dataset.validation.images[:1], dataset.validation.targets[:1])
    training = Training(config, dataclasses.replace(dataset, validation=one), device=device)
    speeds = []
    for _ in range(epochs):  # one less than max_epochs, so that the test of the last is not in the time
        busy = cpu_seconds()
        seen = len(dataset.train) // batch * batch
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
    speeds, accuracy = run(
        dataset,
        arguments.model,
        arguments.epochs,
        arguments.batch,
        torch.device(arguments.device),
        seed=arguments.seed,
        **VARIANTS[arguments.one],
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
    """Takes turns, prints the tables and writes benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, help="images an iteration; by default, as the next three, by model")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rounds", type=int, help="seeds")
    parser.add_argument("--images", type=int, help="an epoch; more than the digits' repeats them")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run_one(arguments)))
        return
    began = time.monotonic()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        Digits(image_size=SIZE).load(Path(folder))
        for model in arguments.models:
            given = {name: getattr(arguments, name) for name in LENGTHS[model]}
            length = LENGTHS[model] | {name: value for name, value in given.items() if value is not None}
            found[model] = _summarize(model, length, _rounds(arguments, model, length, Path(folder)))
    content = {
        "question": "images a second in training, the core beside a DataLoader loop",
        "settings": {"device": arguments.device, "threads": arguments.threads, "image_size": SIZE},
        "models": found,
        "gpu": torch.cuda.get_device_name() if arguments.device == "cuda" else None,
        "seconds_in_all": time.monotonic() - began,
    }
    record(f"training_throughput_{arguments.device}", content, packages=("torch", "numpy"))


def _rounds(arguments: argparse.Namespace, model: str, length: Mapping[str, Any], data: Path) -> list[dict[str, Any]]:
    """Every variant with every seed, in turns, each in a process of its own."""
    runs = []
    for seed in range(length["rounds"]):
        for variant in variants(torch.device(arguments.device), compiled=arguments.compiled):
            given = {"model": model, "device": arguments.device, "threads": arguments.threads, "seed": seed}
            given |= {"data": data, **{name: length[name] for name in ("batch", "epochs", "images")}}
            command = [sys.executable, __file__, "--one", variant]
            command += [
                text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            runs.append(dict(json.loads(done.stdout.splitlines()[-1])))
            speed, busy = (statistics.median(runs[-1][name]) for name in SPEEDS)
            print(f"{model}, round {seed + 1}: {variant}: {speed:,.1f} images/s, {busy:,.1f} a CPU second", flush=True)
    return runs


def _summarize(model: str, length: Mapping[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Speeds and what was learned, by variant, and what the core is beside the better peer; prints it as a table."""
    print(f"\n{model}, {SIZE}x{SIZE}, batches of {length['batch']}")
    print(f"{'variant':18} {'images/s: median':>17} {'(quartiles)':>17} {'a CPU second':>17} {'n':>4} {'accuracy':>16}")
    summary: dict[str, dict[str, Any]] = {}
    learned = length["images"] is None or length["images"] >= Digits().train
    for variant in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == variant]
        clock, busy = (spread([speed for run in own for speed in run[name]]) for name in SPEEDS)
        summary[variant] = {"images_per_second": clock, "images_per_cpu_second": busy}
        told = ""
        if learned:
            accuracy = [run["accuracy"] for run in own]
            deviation = statistics.stdev(accuracy) if len(accuracy) > 1 else None
            summary[variant]["accuracy"] = {"mean": statistics.mean(accuracy), "std": deviation, "by_seed": accuracy}
            told = f"{statistics.mean(accuracy):.3f}" + ("" if deviation is None else f" +- {deviation:.3f}")
        quartiles = f"({clock['quartile_1']:,.1f}, {clock['quartile_3']:,.1f})"
        print(
            f"{variant:18} {clock['median']:17,.1f} {quartiles:>17} {busy['median']:17,.1f} {clock['n']:4} {told:>16}"
        )
    ratios = {}
    for name in SPEEDS:
        medians = {variant: of_it[name]["median"] for variant, of_it in summary.items()}
        best = max((variant for variant in medians if variant.startswith("peer")), key=medians.__getitem__)
        ratios[name] = {"core_over_best_peer": medians["core"] / medians[best], "best_peer": best}
        print(f"{name}: core / best peer ({best}): {ratios[name]['core_over_best_peer']:.2f}")
    found = {"settings": length, "summary": summary, "ratios": ratios, "runs": runs}
    if learned:
        found["accuracy"] = _compare(summary["core"]["accuracy"], summary[ratios[SPEEDS[0]]["best_peer"]]["accuracy"])
        print(f"accuracy: core - best peer: {found['accuracy']}")
    return found


def _compare(core: Mapping[str, Any], peer: Mapping[str, Any]) -> dict[str, Any]:
    """Whether what both learned differs by more than seeds do: two standard errors of the difference of the means."""
    difference, n = core["mean"] - peer["mean"], len(core["by_seed"])
    if n < 2:
        return {"difference": difference, "standard_error": None, "within_noise": None}
    error = math.sqrt((core["std"] ** 2 + peer["std"] ** 2) / n)
    return {"difference": difference, "standard_error": error, "within_noise": abs(difference) <= 2 * error}


if __name__ == "__main__":
    main()
