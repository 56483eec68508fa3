"""Does relaxed weight sharing beat raw sharing and a minimal network (Tables 2 and 3 of the paper)? On digits.

    nice -n 10 python benchmarks/weight_sharing.py

The paper compares single trainings on CIFAR-10, all at one learning rate. Here each method gets the learning rate with
which it validates best at a seed of its own, and is then trained with several other seeds; every method with the same
ones. All share weights on all three levels. The pulls end so high that the angles are below one degree in so few
iterations: the paper's 1e-4 to 1e-1 is made for 195,000 of them.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from trainables.allocator import keep_freed_memory
from trainables.training import Training
from trainables.trial import TrialConfig

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
METHODS: dict[str, dict[str, Any]] = {
    "non-shared": {"sharing": "none"},
    "relaxed, exponential": {"sharing": "relaxed", "pull": {"kind": "exponential", "start": 1e-4, "end": 10.0}},
    "relaxed, adaptive": {"sharing": "relaxed", "pull": {"kind": "adaptive", "start": 1e-4, "end": 30.0, "rate": 0.2}},
    "raw": {"sharing": "raw"},
    "minimal": {"sharing": "minimal"},
}
RATES = (0.1, 0.03)
PILOT = 1000
"""The seed with which learning rates are chosen."""
TRAIN = {
    "optimizer": "sgd",
    "nesterov": True,
    "schedule": {"kind": "step"},
    "weight_decay": 1e-4,
    "batch_size": 32,
}
MODEL = {"blocks": [6, 5, 5], "width": 0.5, "death_rate": 0.0}
DATA = {"name": "digits", "image_size": 8, "train": 500, "validation": 297, "test": 1000}


def train(method: str, rate: float, seed: int, epochs: int, root: Path) -> dict[str, Any]:
    """One training; what is measured is the last step's model, consolidated where it is relaxed."""
    settings = METHODS[method]
    config = TrialConfig.from_dict(
        {
            "family": "shared_resnet",
            "model": MODEL | {"sharing": settings["sharing"]},
            "train": TRAIN
            | {"learning_rate": rate, "seed": seed, "max_epochs": epochs, "pull": settings.get("pull", {})},
            "data": DATA,
        }
    )
    started = time.process_time()
    training = Training(config, config.data.load(root), device=torch.device("cpu"))
    while training.finished is None:
        training.advance()
    last, best = training.metrics, training.best_metrics
    result = {
        "method": method,
        "learning_rate": rate,
        "seed": seed,
        "ended": training.finished,
        "parameters": best["model/parameters"],
        "validation_error": 100 * (1 - last.get("finished/accuracy", last["validation/accuracy"])),
        "kept_validation_error": 100 * (1 - best["validation/accuracy"]),
        "test_error": 100 * (1 - best["test/accuracy"]),
        "processor_seconds": time.process_time() - started,
    }
    if "finished/accuracy" in last:
        result["before_consolidation"] = 100 * (1 - last["validation/accuracy"])
        result["largest_angle"] = last["angle/largest"]
    print(result, flush=True)
    return result


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    return {"mean": statistics.mean(values), "std": statistics.stdev(values), "n": len(values)}


def main() -> None:
    """Choose rates, train, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=12, help="of 15 batches")
    arguments = parser.parse_args()
    epochs = arguments.epochs
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    keep_freed_memory()
    runs, pilots, chosen = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            tried = [train(method, rate, PILOT, epochs, Path(folder)) for rate in RATES]
            chosen[method] = min(tried, key=lambda run: run["kept_validation_error"])["learning_rate"]
            pilots += tried
        for seed in range(arguments.seeds):
            runs += [train(method, chosen[method], seed, epochs, Path(folder)) for method in METHODS]
    summary = {}
    for method in METHODS:
        own = [run for run in runs if run["method"] == method]
        measured = ("test_error", "kept_validation_error", "validation_error", "before_consolidation", "largest_angle")
        summary[method] = {
            "parameters": own[0]["parameters"],
            "learning_rate": chosen[method],
            **{name: spread([run[name] for run in own]) for name in measured if name in own[0]},
        }
        test = summary[method]["test_error"]
        print(f"{method:22} {own[0]['parameters']:9,.0f} {test['mean']:6.2f} +- {test['std']:.2f} %")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT)
    content = {
        "question": "test error (percent) by how weights are shared on all levels, on digits",
        "settings": {
            "model": MODEL,
            "train": TRAIN | {"max_epochs": epochs},
            "data": DATA,
            "methods": METHODS,
            "rates": RATES,
            "pilot": PILOT,
        },
        "summary": summary,
        "runs": runs,
        "pilots": pilots,
        "made": {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit.stdout.strip(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": torch.cpu.get_capabilities()["cpu_name"],
            "threads": 1,
            "load_before": load,
        },
    }
    (RESULTS / f"weight_sharing_{epochs}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
