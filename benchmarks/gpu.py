"""What a GPU makes of the training core: is it right there, how fast, and how near the hardware's limits?

    python benchmarks/gpu.py        # on a machine with an NVIDIA GPU; under 8 minutes

Checks first: a batch's loss and gradients on the GPU against those on the CPU in float32, and for every way of training
a loss that falls. Then it times nRN18 and RN18 at 150 x 150 in each way: eager, torch.compile, with CUDA graphs;
bfloat16, TF32, float32. A way is timed over whole steps of the training core (flips, gathering, measuring and updates
included; validation not), the first of which warms up. What fails is written down with its error, and the rest goes on.

Two limits stand beside each speed, both measured on the same GPU: arithmetic, as 3 forward passes' multiply-adds an
image against what a large matrix product reaches; and memory, as bytes that must move against what a large copy
reaches. The bytes are a lower bound: what a layer leaves is written and read on the way there, and read on the way
back, and its gradient is written and read.

Pixels are random: neither the time of a kernel nor that of a copy depends on them. What the networks learn there is
their images' labels by heart, which is what the falling loss shows.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.data.dataset import Dataset, Split
from trainables.data.pathfinder import Pathfinder
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.training import Training
from trainables.trial import TrainConfig, TrialConfig

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "gpu.json"
QUESTION = "training images a second on a GPU, and the shares of its limits that this is"
SIZE, BATCH, IMAGES = 150, 196, 19_600
MODELS = {"nRN18": (16, 32, 32, 32), "RN18": (64, 128, 256, 512)}
GOALS = {"nRN18": 100_000, "RN18": 15_000}
"""Training images a second on an H200."""
WAYS: tuple[dict[str, Any], ...] = (
    {"precision": "bfloat16"},
    {"precision": "bfloat16", "compile": "on"},
    {"precision": "bfloat16", "compile": "cuda_graphs"},
    {"precision": "tfloat32"},
    {"precision": "tfloat32", "compile": "cuda_graphs"},
    {"precision": "float32"},
)
BATCHES = (196, 1024)


def main() -> None:
    """Checks, times, prints and writes benchmarks/results/gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6, help="after which nothing further is begun")
    parser.add_argument("--steps", type=int, default=4, help="timed, a way; each of 19,600 images")
    parser.add_argument(
        "--try-on-cpu", action="store_true", help="try the script itself, with little, and write nothing"
    )
    arguments = parser.parse_args()
    if not arguments.try_on_cpu and not torch.cuda.is_available():
        print("no GPU here: nothing is measured")
        if not RESULT.exists():
            content = {
                "question": QUESTION,
                "runs": [],
                "left_out": "all of it: no GPU has been at hand",
                "made": _made(),
            }
            RESULT.write_text(json.dumps(content, indent=1) + "\n")
        return
    device = torch.device("cpu" if arguments.try_on_cpu else "cuda")
    began = time.monotonic()
    images = 2 * BATCH if arguments.try_on_cpu else IMAGES
    dataset = _dataset(images)
    ways = WAYS[-1:] if arguments.try_on_cpu else WAYS
    limits = {"multiply_adds_per_second": _products(device), "bytes_per_second": _copies(device)}
    print(f"limits as measured: {limits['multiply_adds_per_second']:.3g} multiply-adds/s (bfloat16 matrix product), "
          f"{limits['bytes_per_second']:.3g} bytes/s (copy)")  # fmt: skip
    checks = {name: _attempt(lambda name=name: _check(name, dataset, device)) for name in MODELS}
    print("CPU and GPU agree:", json.dumps(checks))
    runs: list[dict[str, Any]] = []
    for batch in BATCHES[: 1 if arguments.try_on_cpu else None]:
        for name in MODELS:
            for way in ways:
                run = {"model": name, "batch_size": batch, **way}
                if time.monotonic() - began > 60 * arguments.minutes:
                    runs.append(run | {"left_out": "no time was left"})
                    continue
                measure = lambda: _time(name, batch, way, dataset, device, limits, arguments.steps)  # noqa: B023, E731
                runs.append(run | _attempt(measure))
                print(json.dumps(runs[-1]), flush=True)
    if arguments.try_on_cpu:
        return
    content = {
        "question": QUESTION,
        "settings": {"image_size": SIZE, "images_a_step": images, "timed_steps": arguments.steps},
        "limits": limits,
        "cpu_and_gpu_agree": checks,
        "goals_on_an_h200": GOALS,
        "runs": runs,
        "seconds_in_all": time.monotonic() - began,
        "made": _made(),
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n")
    _summarize(runs)


def _made() -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _summarize(runs: list[dict[str, Any]]) -> None:
    for name, goal in GOALS.items():
        fastest = max((run for run in runs if run["model"] == name and "images_per_second" in run), default=None,
                      key=lambda run: run["images_per_second"])  # fmt: skip
        if fastest is None:
            print(f"{name}: nothing ran")
        else:
            print(f"{name}: {fastest['images_per_second']:,.0f} images/s at best (goal on an H200: {goal:,}), "
                  f"360,000 images in {360_000 / fastest['images_per_second']:.1f} s")  # fmt: skip
            print(json.dumps(fastest))


def _attempt(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured, or why nothing was."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other measurements go on
        torch.compiler.reset()
        return {"failed": f"{type(error).__name__}: {str(error)[:300]}"}


def _dataset(images: int) -> Dataset:
    config = Pathfinder(train=images, validation=BATCH, test=BATCH)
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        pixels = rng.integers(0, 256, (n, 1, SIZE, SIZE), dtype=np.uint8)
        return Split(images=pixels, targets=rng.integers(0, 2, n))

    return Dataset(
        name="pathfinder",
        digest=config.digest,
        task=config.task,
        preprocessing=config.preprocessing,
        train=split(images),
        validation=split(BATCH),
        test=split(BATCH),
    )


def _training(name: str, batch: int, way: dict[str, Any], dataset: Dataset, device: torch.device) -> Training:
    config = TrialConfig(
        family="narrow_resnet",
        model=NarrowResNetConfig(channels=MODELS[name]),
        train=TrainConfig(batch_size=batch, max_epochs=1000, flips="both", **way),
        data=Pathfinder(train=len(dataset.train), validation=BATCH, test=BATCH),
    )
    return Training(config, dataset, device=device)


def _check(name: str, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    """How far one batch's loss and gradient are from the CPU's, in float32."""
    losses, gradients = [], []
    for place in (torch.device("cpu"), device):
        training = _training(name, BATCH, {"precision": "float32"}, dataset, place)
        model = training.model.train()
        images = torch.from_numpy(dataset.train.images[:32]).to(place)
        targets = torch.from_numpy(dataset.train.targets[:32]).to(place)
        inputs = dataset.preprocessing.normalize(images).contiguous(memory_format=torch.channels_last)
        loss = dataset.task.loss(model(inputs), targets)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]))
    apart = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    return {"losses": losses, "gradients_apart": apart, "right": apart < 0.02 and abs(losses[0] - losses[1]) < 1e-3}


def _time(
    name: str,
    batch: int,
    way: dict[str, Any],
    dataset: Dataset,
    device: torch.device,
    limits: dict[str, float],
    steps: int,
) -> dict[str, Any]:
    training = _training(name, batch, way, dataset, device)
    started = time.monotonic()
    first = training.advance()
    warm_up = time.monotonic() - started
    later = [training.advance() for _ in range(steps)]
    speeds = [metrics["images_per_second"] for metrics in later]
    speed = statistics.median(speeds)
    multiply_adds = 3 * first["model/multiply_adds"]
    moved = _bytes_moved(training, 2 if way["precision"] == "bfloat16" else 4)
    return {
        "images_per_second": speed,
        "slowest_and_fastest": [min(speeds), max(speeds)],
        "warm_up_seconds": warm_up,
        "utilization": later[-1].get("gpu/utilization"),
        "peak_memory": later[-1]["peak_memory"],
        "share_of_arithmetic": speed * multiply_adds / limits["multiply_adds_per_second"],
        "share_of_bandwidth": speed * moved / limits["bytes_per_second"],
        "losses": [first["train/loss"], later[-1]["train/loss"]],
        "learns": later[-1]["train/loss"] < first["train/loss"],
    }


def _bytes_moved(training: Training, size: int) -> int:
    """The least that one image's training moves: 5 times what its layers leave, at so many bytes a number."""
    numbers = 0

    def add(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal numbers
        numbers += output.numel()

    layers = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.MaxPool2d)
    hooks = [module.register_forward_hook(add) for module in training.model.modules() if isinstance(module, layers)]
    try:
        with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
            training.model.eval()(torch.zeros(1, 1, SIZE, SIZE, device=training.device))
    finally:
        for hook in hooks:
            hook.remove()
    return 5 * numbers * size


def _products(device: torch.device) -> float:
    """Multiply-adds a second of a large bfloat16 matrix product."""
    n = 8192 if device.type == "cuda" else 256
    left, right = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return n**3 / _seconds(lambda: left @ right, device)


def _copies(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes."""
    numbers = torch.zeros(2**30 if device.type == "cuda" else 2**22, dtype=torch.uint8, device=device)
    other = torch.empty_like(numbers)
    return 2 * numbers.numel() / _seconds(lambda: other.copy_(numbers), device)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """The best of 5, each of 10 in a row, after a warm-up."""
    times = []
    for _ in range(6):
        _wait(device)
        started = time.perf_counter()
        for _ in range(10):
            work()
        _wait(device)
        times.append((time.perf_counter() - started) / 10)
    return min(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
