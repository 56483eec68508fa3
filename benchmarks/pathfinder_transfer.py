"""Is our Pathfinder the original's? A narrow ResNet is trained on our images and scored on images of the original.

    python benchmarks/pathfinder_transfer.py --path-length 6 --minutes 25

If the two programs draw from one distribution, a model is as good on theirs as on our own test images, up to the
sampling error of both scores: the 500 reference images give one of about sqrt(p (1 - p) / 500), 1.3 points at 90 %.
The baseline that knows only the markers' distance is in the result, since a score says something beyond it only.
The reference images were made by the original program and are no part of this repository: `--reference` names a folder
with pathfinder_06.npz and its like (`images` uint8 [500, 300, 300]; `labels`, 1 where one path has both markers).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from benchmarks.recorded import ROOT, record
from trainables.allocator import keep_freed_memory
from trainables.data.pathfinder import Pathfinder
from trainables.data.pathfinder.distances import marker_distance_baseline
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.training import Training
from trainables.trial import TrainConfig, TrialConfig

REFERENCE = ROOT.parent / "shared" / "reference"


def accuracy(training: Training, images: np.ndarray, targets: np.ndarray) -> float:
    """Of the best weights, in float32."""
    training.model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(images), 250):
            inputs = training.dataset.preprocessing.normalize(torch.tensor(images[start : start + 250]))
            outputs = functional_call(training.model, dict(training.best_weights), (inputs,))
            right += int(((outputs[:, 0] > 0).numpy() == targets[start : start + 250]).sum())
    return right / len(images)


def main() -> None:
    """Train, score twice, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path-length", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=25, help="of training, wall time")
    parser.add_argument("--train", type=int, default=20_000, help="training images")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path.home() / ".sweepserve" / "data")
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="folder with the original's images")
    arguments = parser.parse_args()
    reference = arguments.reference / f"pathfinder_{arguments.path_length:02}.npz"
    if not reference.exists():
        parser.error(f"no reference images: {reference} is not there; --reference names a folder that has them")
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()

    data = Pathfinder(path_length=arguments.path_length, train=arguments.train, validation=1000, test=5000)
    dataset = data.load(arguments.data)
    train = TrainConfig(
        learning_rate=arguments.learning_rate, batch_size=arguments.batch_size, max_epochs=10_000, flips="both"
    )
    config = TrialConfig(family="narrow_resnet", model=NarrowResNetConfig(), train=train, data=data)
    training = Training(config, dataset, device=torch.device("cpu"))
    started, curve = time.monotonic(), []
    while time.monotonic() - started < 60 * arguments.minutes:
        metrics = training.advance()
        curve.append({name: metrics[name] for name in ("train/loss", "validation/accuracy", "images_per_second")})
        print(training.step, round(time.monotonic() - started), curve[-1], flush=True)

    with np.load(reference) as file:
        theirs = np.stack([dataset.preprocessing.fit(image) for image in file["images"]])
        labels = file["labels"].astype(np.int64)
    scores = {}
    for name, images, targets in (
        ("our test images", dataset.test.images, dataset.test.targets),
        ("reference images", theirs, labels),
    ):
        score = accuracy(training, images, targets)
        scores[name] = {"accuracy": score, "n": len(images), "sigma": math.sqrt(score * (1 - score) / len(images))}
    ours, original = scores.values()
    difference = original["accuracy"] - ours["accuracy"]
    result: dict[str, Any] = {
        "question": "does a narrow ResNet trained on our images score alike on images of the original program",
        "data": data.to_dict(),
        "train": train.to_dict(),
        "epochs": training.step,
        "minutes": (time.monotonic() - started) / 60,
        "scores": scores,
        "difference": {"points": 100 * difference, "sigma": 100 * math.hypot(ours["sigma"], original["sigma"])},
        "marker_distance_baseline": marker_distance_baseline(data),
        "curve": curve,
        "arguments": {"minutes": arguments.minutes, "threads": arguments.threads},
    }
    record(f"pathfinder_transfer_{arguments.path_length:02}", result, packages=("torch",))
    print(json.dumps({"scores": scores, "difference": result["difference"]}))


if __name__ == "__main__":
    main()
