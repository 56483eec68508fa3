"""What a study of the spatial RNNs finds on the digits: a table beside the thesis's, and curves over the learning rate.

    python benchmarks/spatial_rnn_studies.py                            # table 4.3: minutes on two idle cores
    python benchmarks/spatial_rnn_studies.py spatial-rnn-figure-4-6

The study's small form is one sweep of the service: a stack of its own is started, the study submitted over HTTP and
watched to its end, and what is said here is read from the API. Accuracies are of the test images, with the weights that
were best in validation; a network's learning rate is the one with the best mean validation accuracy over its seeds; a
trial that diverged counts as 0.
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
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from embedded_stack import running_stack

from search_spaces import study
from service.client import Client

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


def sweep(document: Mapping[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """Every trial of a sweep, as the API tells of it, and the seconds from its submission to its end."""
    with (
        tempfile.TemporaryDirectory(prefix="study-") as home,
        running_stack(Path(home)) as stack,
        Client(stack.url) as client,
    ):
        started = time.perf_counter()
        submitted = client.submit(document)
        ended = 0
        for event in client.watch(submitted["id"]):
            if event["kind"] == "trial" and event["data"]["state"] in ("completed", "failed"):
                ended += 1
                print(f"{ended} trials, {time.perf_counter() - started:.0f} s", flush=True)
        seconds = time.perf_counter() - started
        state = client.sweep(submitted["id"])["state"]
        assert state == "completed", f"the sweep is {state}"
        return [_read(client, submitted["id"], trial) for trial in client.trials(submitted["id"])], seconds


def _read(client: Client, sweep_id: str, trial: Mapping[str, Any]) -> dict[str, Any]:
    steps = [one["metrics"] for one in client.measurements(sweep_id, trial=trial["id"])]
    last = {name: float(value) for name, value in steps[-1].items()}
    return {
        "network": name_of(trial["point"]),
        "learning_rate": trial["point"][RATE],
        "repeat": trial["repeat"],
        "state": trial["state"],
        "reason": trial["reason"],
        "epochs": trial["step"],
        "validation": float(trial["values"][0]) if trial["values"] else 0.0,
        "test": last.get("test/accuracy", 0.0),
        "validation_loss": last.get("validation/loss", math.nan),
        "truncated": last.get("gradient/truncated"),
        "parameters": last["model/parameters"],
        "seconds": sum(float(step["seconds"]) for step in steps),
    }


def name_of(point: Mapping[str, Any]) -> str:
    """As the thesis calls the network: 2MLP lstm."""
    kind = "CNN" if point["model.network"] == "cnn" else f"{point['model.depth']}MLP"
    return f"{kind} {point['model.layer']}"


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
    parser.add_argument("study", nargs="?", default="spatial-rnn-table-4-3")
    arguments = parser.parse_args()
    document = study(arguments.study, small=True)
    load_before = os.getloadavg()
    runs, seconds = sweep(document)
    summary = summarize(runs)
    content = {
        "question": f"{arguments.study}, its small form, as one sweep of the service: test accuracies in percent",
        "spec": document,
        "summary": summary,
        "thesis": THESIS.get(arguments.study),
        "trials": len(runs),
        "wall_seconds": seconds,
        "training_seconds": sum(run["seconds"] for run in runs),
        "runs": sorted(runs, key=lambda run: (run["network"], run["learning_rate"], run["repeat"])),
        "made": _circumstances(load_before),
    }
    path = ROOT / "benchmarks" / "results" / f"{arguments.study.replace('-', '_')}.json"
    path.write_text(json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")
    for network, found in summary.items():
        print(f"{network:10} {found['test']:.2f} ± {found['deviation'] or 0:.2f} at {found['best_learning_rate']}")
    print(f"{len(runs)} trials in {seconds:.0f} s; wrote {path.relative_to(ROOT)}")


def _finite(value: Any) -> Any:
    """Plain data in which a number that is none, such as a loss that diverged, is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _circumstances(load_before: Sequence[float]) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        **{name: version(name) for name in ("torch", "ray", "mlflow")},
        "python": platform.python_version(),
        "cpu": torch.cpu.get_capabilities()["cpu_name"],
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before_and_after": [list(load_before), list(os.getloadavg())],
    }


if __name__ == "__main__":
    main()
