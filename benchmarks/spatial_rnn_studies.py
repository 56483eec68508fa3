"""What a study of the spatial RNNs finds on the digits: a table beside the thesis's, and curves over the learning rate.

    python benchmarks/spatial_rnn_studies.py spatial-rnn-table-4-3      # minutes on two idle cores
    python benchmarks/spatial_rnn_studies.py spatial-rnn-figure-4-6

The study's small form is run whole, every point of its grid with every seed, by as many processes as there are cores,
one thread each. They run the trials' training as the service does, without Ray, checkpoints and MLflow. Accuracies are
of the test images, with the weights that were best in validation; a network's learning rate is the one with the best
mean validation accuracy over its seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from search_spaces import study
from service.spec import SweepSpec
from trainables.training import Training
from trainables.trial import TrialConfig

ROOT = Path(__file__).parents[1]
RATE = "train.learning_rate"
THESIS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "spatial-rnn-table-4-3": {
        "2MLP lstm": (88.38, 0.28),
        "2MLP fc": (88.48, 0.12),
        "1MLP lstm": (89.65, 0.31),
        "1MLP fc": (87.13, 0.34),
        "CNN lstm": (94.80, 0.33),
        "CNN fc": (93.75, 0.35),
    }
}
"""Percent correct and deviation over three seeds, on MNIST with 500 training images (table 4.3)."""


def run_trial(values: Mapping[str, Any], root: str) -> dict[str, Any]:
    """What one trial measures, and the processor time that it takes."""
    torch.set_num_threads(1)
    started = time.process_time()
    trial = TrialConfig.from_dict(values)
    training = Training(trial, trial.data.load(Path(root)), device=torch.device("cpu"))
    while training.finished is None:
        training.advance()
    last = training.metrics
    return {
        "network": name_of(values["model"]),
        "learning_rate": trial.train.learning_rate,
        "seed": trial.train.seed,
        "epochs": training.step,
        "ended": training.finished,
        "validation": training.best_metrics.get("validation/accuracy", 0.0),
        "test": training.best_metrics.get("test/accuracy", 0.0),
        "validation_loss": last["validation/loss"],
        "truncated": last.get("gradient/truncated"),
        "parameters": last["model/parameters"],
        "cpu_seconds": time.process_time() - started,
    }


def name_of(model: Mapping[str, Any]) -> str:
    """As the thesis calls the network: 2MLP lstm."""
    kind = "CNN" if model["network"] == "cnn" else f"{model['depth']}MLP"
    return f"{kind} {model['layer']}"


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By network: each learning rate's accuracies (percent), and the best rate's."""
    groups: dict[str, dict[float, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run["network"]][run["learning_rate"]].append(run)
    summary = {}
    for network, rates in groups.items():
        curve = {rate: _of(some) for rate, some in sorted(rates.items())}
        best = max(curve, key=lambda rate: curve[rate]["validation"])
        summary[network] = {"best_learning_rate": best, **curve[best], "by_learning_rate": curve}
    return summary


def _of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    tests = [100 * run["test"] for run in runs]
    losses = [run["validation_loss"] for run in runs]
    told = [run["truncated"] for run in runs if run["truncated"] is not None]
    return {
        "test": statistics.mean(tests),
        "deviation": statistics.stdev(tests) if len(tests) > 1 else None,
        "validation": statistics.mean(100 * run["validation"] for run in runs),
        "validation_loss": statistics.median(losses),
        "truncated": statistics.mean(told) if told else None,
        "parameters": runs[0]["parameters"],
        "n": len(runs),
    }


def main() -> None:
    """Runs the study and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    arguments = parser.parse_args()
    document = study(arguments.study, small=True)
    spec = SweepSpec.from_dict(document)
    points = list(spec.space.grid())
    trials = [spec.trial(point, repeat).to_dict() for point in points for repeat in range(spec.search.repeats)]
    load_before, started = os.getloadavg(), time.perf_counter()
    workers = len(os.sched_getaffinity(0))
    runs = []
    with tempfile.TemporaryDirectory() as root:
        spec.trial(points[0]).data.load(Path(root))
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for future in as_completed([pool.submit(run_trial, trial, root) for trial in trials]):
                runs.append(future.result())
                print(f"{len(runs)} of {len(trials)}: {json.dumps(runs[-1])}", flush=True)
    summary = summarize(runs)
    content = {
        "question": f"{arguments.study}, its small form: test accuracies in percent",
        "spec": document,
        "summary": summary,
        "thesis": THESIS.get(arguments.study),
        "trials": len(trials),
        "wall_seconds": time.perf_counter() - started,
        "cpu_seconds": sum(run["cpu_seconds"] for run in runs),
        "runs": sorted(runs, key=lambda run: (run["network"], run["learning_rate"], run["seed"])),
        "made": _circumstances(workers, load_before),
    }
    path = ROOT / "benchmarks" / "results" / f"{arguments.study.replace('-', '_')}.json"
    path.write_text(json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")
    for network, found in summary.items():
        print(f"{network:10} {found['test']:.2f} ± {found['deviation'] or 0:.2f} at {found['best_learning_rate']}")
    print(f"wrote {path.relative_to(ROOT)}")


def _finite(value: Any) -> Any:
    """Plain data in which a number that is none, such as a loss that diverged, is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _circumstances(workers: int, load_before: Sequence[float]) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": torch.cpu.get_capabilities()["cpu_name"],
        "processes": workers,
        "load_average_before_and_after": [list(load_before), list(os.getloadavg())],
    }


if __name__ == "__main__":
    main()
