"""Does a contour network learn alike in float32 and in mixed precision?

    python benchmarks/contour_precision.py

The small networks of contour_dynamics.py, by the same seeds in both precisions: same initial weights, same order of
images, same flips. Mixed precision is bfloat16 autocast around the training loss, weights and updates staying float32;
validation is in float32 for both. "Within noise" means: the difference that the precision makes of a seed's loss is
small beside the deviation between seeds of one precision. As many processes as there are cores train at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from contour_dynamics import NAMES, rounded, trial_of
from matplotlib.figure import Figure

from benchmarks.recorded import made
from trainables.allocator import keep_freed_memory
from trainables.training import Training

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("float32", "bfloat16")
RULES = ("bptt", "c_rbp")
CURVES = {"train/loss": "training loss", "validation/loss": "validation loss", "validation/f1": "validation F1"}


def run(rule: str, precision: str, seed: int, options: Mapping[str, Any], root: str) -> dict[str, Any]:
    """One network's learning curves."""
    torch.set_num_threads(1)
    keep_freed_memory()
    trial = trial_of(rule, seed, {**options, "precision": precision})
    dataset = trial.data.load(Path(root))
    processor = time.process_time()
    training = Training(trial, dataset, device=torch.device("cpu"))
    while training.finished is None:
        training.advance()
    curves = {name: [metrics[name] for metrics in training.history.values()] for name in CURVES}
    seconds = time.process_time() - processor
    return {"rule": rule, "precision": precision, "seed": seed, "cpu_seconds": seconds, **curves}


def summarize(runs: Sequence[Mapping[str, Any]], rules: Sequence[str]) -> dict[str, Any]:
    """By rule and curve: what the precision changes in the last epoch, beside what the seed changes.

    `change` is the mean over seeds of (bfloat16 - float32) with its standard error; `between_seeds` is the deviation of
    float32 trainings; `curve_distance` and `seed_distance` are the mean absolute distances, over all epochs, between
    the two precisions of a seed and between two seeds of float32.
    """
    summary: dict[str, Any] = {}
    for rule in rules:
        summary[rule] = {}
        for name in CURVES:
            whole, mixed = (
                [
                    one[name]
                    for one in sorted(runs, key=lambda one: one["seed"])
                    if (one["rule"], one["precision"]) == key
                ]
                for key in ((rule, precision) for precision in PRECISIONS)
            )
            changes = [b[-1] - a[-1] for a, b in zip(whole, mixed, strict=True)]
            n = len(changes)
            summary[rule][name] = {
                "float32": statistics.mean(curve[-1] for curve in whole),
                "bfloat16": statistics.mean(curve[-1] for curve in mixed),
                "change": {
                    "mean": statistics.mean(changes),
                    "standard_error": statistics.stdev(changes) / n**0.5 if n > 1 else None,
                    "n": n,
                },
                "between_seeds": statistics.stdev(curve[-1] for curve in whole) if n > 1 else None,
                "curve_distance": statistics.mean(_distance(a, b) for a, b in zip(whole, mixed, strict=True)),
                "seed_distance": statistics.mean(_distance(a, b) for i, a in enumerate(whole) for b in whole[:i])
                if n > 1
                else None,
            }
    return summary


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    return statistics.mean(abs(x - y) for x, y in zip(a, b, strict=True))


def draw(runs: Sequence[Mapping[str, Any]], rules: Sequence[str]) -> Figure:
    """Each seed's curves in both precisions."""
    figure = Figure(figsize=(12.6, 3.4 * len(rules)), layout="constrained")
    grid = figure.subplots(len(rules), len(CURVES), squeeze=False)
    for row, rule in zip(grid, rules, strict=True):
        for axes, (name, title) in zip(row, CURVES.items(), strict=True):
            for one in runs:
                if one["rule"] == rule:
                    number = PRECISIONS.index(one["precision"])
                    label = one["precision"] if one["seed"] == 0 else None
                    axes.plot(
                        range(1, len(one[name]) + 1), one[name], ("-", "--")[number], color=f"C{number}", label=label
                    )
            axes.set(xlabel="epochs", ylabel=title, title=NAMES[rule])
            axes.grid(alpha=0.3)
    grid[0, 0].legend()
    return figure


def main() -> None:
    """Trains, draws, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--path-length", type=int, default=6)
    parser.add_argument("--distractors", type=int, default=4)
    parser.add_argument("--train", type=int, default=500, help="training images")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--kernel", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=3e-2)
    parser.add_argument("--output", type=Path, default=RESULTS / "contour_precision", help="without a suffix")
    options = vars(parser.parse_args())
    output = options.pop("output")
    workers, started = len(os.sched_getaffinity(0)), time.perf_counter()
    runs = []
    with tempfile.TemporaryDirectory() as root:
        trial_of("bptt", 0, options).data.load(Path(root))
        seeds = range(options["seeds"])
        jobs = [(rule, precision, seed) for seed in seeds for rule in options["rules"] for precision in PRECISIONS]
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for done in as_completed([pool.submit(run, *job, options, root) for job in jobs]):
                one = done.result()
                runs.append(one)
                print(
                    f"{len(runs)} of {len(jobs)}: {one['rule']:6} {one['precision']:8} seed {one['seed']}: "
                    f"{one['cpu_seconds']:.0f} s, training loss {one['train/loss'][-1]:.4f}, "
                    f"validation F1 {one['validation/f1'][-1]:.3f}",
                    flush=True,
                )
    runs.sort(key=lambda one: (RULES.index(one["rule"]), one["precision"], one["seed"]))
    summary = summarize(runs, options["rules"])
    content = {
        "question": "learning curves of small contour networks in float32 and in mixed precision, by the same seeds",
        "options": options,
        "summary": summary,
        "wall_seconds": time.perf_counter() - started,
        "runs": runs,
        "made": {**made(("torch",)), "processes": workers},
    }
    output.with_suffix(".json").write_text(json.dumps(rounded(content), indent=1) + "\n")
    draw(runs, options["rules"]).savefig(output.with_suffix(".png"), dpi=110)
    print(json.dumps(rounded(summary), indent=1))


if __name__ == "__main__":
    main()
