"""How small may Pathfinder's images be? A narrow ResNet is trained on the CPU at one image size, beside the shortcut.

    python benchmarks/pathfinder_small_images.py --image-size 64

The papers' 300 x 300 images are shrunk by averaging (at this size the nearest pixels would leave dashes out). Training
is Adam with flips and one cosine over all epochs; it ends early once validation accuracy has stood still for
`--patience` epochs. The test accuracy is that of the weights with the best validation accuracy, on images that nothing
was chosen by. The baseline knows only the distance of the two markers, on images of the same settings.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from trainables.allocator import keep_freed_memory
from trainables.data.pathfinder import Pathfinder
from trainables.data.pathfinder.distances import marker_distance_baseline
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.schedules import Schedule
from trainables.training import Training
from trainables.trial import TrainConfig, TrialConfig

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TOLD = ("train/loss", "validation/loss", "validation/accuracy", "images_per_second")


def main() -> None:
    """Train, test, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path-length", type=int, default=6)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--train", type=int, default=40_000, help="training images")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--patience", type=int, default=10, help="epochs")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path.home() / ".sweepserve" / "data")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()

    data = Pathfinder(
        path_length=arguments.path_length,
        image_size=arguments.image_size,
        resize="area",
        train=arguments.train,
        validation=2000,
        test=5000,
    )
    dataset = data.load(arguments.data)
    train = TrainConfig(
        learning_rate=arguments.learning_rate,
        schedule=Schedule(kind="cosine"),
        batch_size=arguments.batch_size,
        max_epochs=arguments.epochs,
        patience=arguments.patience,
        flips="both",
        seed=arguments.seed,
    )
    config = TrialConfig(family="narrow_resnet", model=NarrowResNetConfig(), train=train, data=data)
    training = Training(config, dataset, device=torch.device("cpu"))
    load, wall, cpu = os.getloadavg()[0], time.monotonic(), time.process_time()
    while training.finished is None:
        metrics = training.advance()
        print(
            training.step, round(time.monotonic() - wall), {name: round(metrics[name], 4) for name in TOLD}, flush=True
        )
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu

    accuracy = training.best_metrics["test/accuracy"]
    result = {
        "question": "what accuracy a narrow ResNet reaches on Pathfinder at a small image size",
        "model": config.model.to_dict(),
        "train": train.to_dict(),
        "data": data.to_dict(),
        "ended": training.finished,
        "epochs": training.step,
        "best_epoch": training.best_step,
        "minutes": {"wall": wall / 60, "cpu": cpu / 60},
        "test_accuracy": {
            "accuracy": accuracy,
            "sigma": math.sqrt(accuracy * (1 - accuracy) / len(dataset.test)),
            "n": len(dataset.test),
        },
        "marker_distance_baseline": marker_distance_baseline(data),
        "curve": [{name: metrics[name] for name in TOLD} for metrics in training.history.values()],
        "made": {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": subprocess.run(
                ["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT
            ).stdout.strip(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": torch.cpu.get_capabilities()["cpu_name"],
            "threads": arguments.threads,
            "load_before": load,
        },
    }
    path = RESULTS / f"pathfinder_small_images_{arguments.path_length:02}_{arguments.image_size}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: result[name] for name in ("test_accuracy", "marker_distance_baseline", "minutes")}))


if __name__ == "__main__":
    main()
