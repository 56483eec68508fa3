"""Which learning rule gives a contour network that stays right when it runs on, far beyond the steps of its training?

    python benchmarks/contour_dynamics.py                       # each rule with two seeds: minutes on two idle cores
    python benchmarks/contour_dynamics.py --seeds 1 --train 500 --epochs 2 --beyond 40    # a look, in seconds

Figure 1 of Linsley et al. 2020 ("Stable and expressive recurrent vision models"), small: short paths in images of
32 x 32 pixels, narrow networks with small kernels, trained here by each rule at the steps that the paper gives it: 6
for back-propagation through time, 20 for recurrent back-propagation. The weights are those that validated best at the
steps of training; then the network runs on, on test images, and is scored after each step. Beside it: how far a step
still moves the state, and the same on longer paths than it was trained with. What is scored by answering "every bright
pixel" is the chance level, as all dashes are equally bright.

As many processes as there are cores train at a time, one thread each.
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
from matplotlib.figure import Figure

from benchmarks.recorded import made
from trainables.allocator import keep_freed_memory
from trainables.data.dataset import Dataset
from trainables.measured import Measured
from trainables.models.contour_rnn.network import ContourRNN
from trainables.training import Training
from trainables.trial import TrialConfig

RESULTS = Path(__file__).parent / "results"
STEPS: Mapping[str, int] = {"bptt": 6, "c_bptt": 6, "rbp": 20, "c_rbp": 20}
"""Of training, by rule."""
NAMES = {"bptt": "BPTT", "c_bptt": "C-BPTT", "rbp": "RBP", "c_rbp": "C-RBP"}
STYLES = ("-", "--", "-.", ":")  # lines that lie on each other are both seen
TOGETHER = 64
BRIGHT = 64


def trial_of(rule: str, seed: int, options: Mapping[str, Any], *, path_length: int | None = None) -> TrialConfig:
    """A rule's trial; `path_length`: on test images with longer paths."""
    data = {
        "name": "pathfinder",
        "preset": "lra_32",
        "pixel_range": "unit",
        "masks": True,
        "path_length": path_length or options["path_length"],
        "distractors": options["distractors"],
        "train": options["train"],
        "validation": 256,
        "test": 256,
    }
    model = {
        "network": "softplus_hgru",
        "readout": "pixels",
        "channels": options["channels"],
        "kernel": options["kernel"],
        "statistics": "batch",  # as the public code has it: then every step is the same map
        "symmetry": "none",  # as well
        "rule": rule,
        "steps": STEPS[rule],
    }
    train = {
        "learning_rate": options["learning_rate"],
        "schedule": {"kind": "cosine"},
        "batch_size": 32,
        "flips": "both",
        "max_epochs": options["epochs"],
        "precision": options.get("precision", "float32"),
        "seed": seed,
    }
    return TrialConfig.from_dict({"family": "contour_rnn", "model": model, "train": train, "data": data})


def run(rule: str, seed: int, options: Mapping[str, Any], root: str) -> dict[str, Any]:
    """Trains one network and runs it on."""
    torch.set_num_threads(1)
    keep_freed_memory()
    trial = trial_of(rule, seed, options)
    dataset = trial.data.load(Path(root))
    started, processor = time.perf_counter(), time.process_time()
    training = Training(trial, dataset, device=torch.device("cpu"))
    while training.finished is None:
        metrics = training.advance()
        print(f"  {rule} seed {seed} epoch {training.step}: F1 {metrics['validation/f1']:.3f}", flush=True)
    taken = time.perf_counter() - started, time.process_time() - processor
    told = {
        "rule": rule,
        "seed": seed,
        "ended": training.finished,
        "best_epoch": training.best_step,
        "wall_seconds": taken[0],
        "cpu_seconds": taken[1],
        "validation_f1": [metrics.get("validation/f1", 0.0) for metrics in training.history.values()],
        "train_loss": [metrics["train/loss"] for metrics in training.history.values()],
    }
    module = training.model
    assert isinstance(module, ContourRNN)
    if training.best_step is not None:
        module.load_state_dict(dict(training.best_weights))
    module.eval()
    longer = trial_of(rule, seed, options, path_length=options["longer"]).data.load(Path(root))
    told |= beyond(module, dataset, options["beyond"])
    return told | {"longer": beyond(module, longer, options["beyond"])}


@torch.inference_mode()
def beyond(module: ContourRNN, dataset: Dataset, steps: int) -> dict[str, list[float]]:
    """F1 and IoU of the test images after step 1, 2, ..., and by how much the step changed the state, relatively."""
    measured = [Measured() for _ in range(steps)]
    for start in range(0, len(dataset.test), TOGETHER):
        rows = slice(start, start + TOGETHER)
        images, targets = torch.tensor(dataset.test.images[rows]), torch.tensor(dataset.test.targets[rows])
        dynamics = module.dynamics(dataset.preprocessing.normalize(images))
        before = dynamics.start
        for t, state in enumerate(module.trajectory(dynamics, steps)):
            moved = (state - before).norm() / state.norm()
            measured[t].add(dataset.task.measure(module.read_out(state, dynamics), targets), {"moved": moved})
            before = state
    read = [one.read("test", dataset.task) for one in measured]
    return {
        name: [found[f"{split}{name}"] for found in read]
        for name, split in (("f1", "test/"), ("iou", "test/"), ("moved", "test/"))
    }


def every_bright_pixel(dataset: Dataset) -> dict[str, float]:
    """What the answer scores that knows nothing of paths: all that is drawn."""
    images, targets = torch.tensor(dataset.test.images[:, 0]), torch.tensor(dataset.test.targets)
    logits = torch.stack([torch.zeros(images.shape), torch.where(images > BRIGHT, 1.0, -1.0)], dim=1)
    scores = dataset.task.summarize(dataset.task.measure(logits, targets))
    return {name: scores[name] for name in ("f1", "iou")}


def summarize(runs: Sequence[Mapping[str, Any]], last: int) -> dict[str, Any]:
    """By rule: scores at the steps of training, at their best and at the last step; mean and deviation over seeds."""
    summary: dict[str, Any] = {}
    for rule, trained in STEPS.items():
        own = [one for one in runs if one["rule"] == rule]
        summary[rule] = {"steps": trained, "n": len(own), "cpu_seconds": _spread([one["cpu_seconds"] for one in own])}
        for part, tested in (("", own), ("longer_", [one["longer"] for one in own])):
            for metric in ("f1", "iou"):
                curves = [one[metric] for one in tested]
                summary[rule][f"{part}{metric}"] = {
                    "trained": _spread([curve[trained - 1] for curve in curves]),
                    "peak": _spread([max(curve) for curve in curves]),
                    "peak_step": [curve.index(max(curve)) + 1 for curve in curves],
                    "twice": _spread([curve[2 * trained - 1] for curve in curves]),
                    "last": _spread([curve[last - 1] for curve in curves]),
                }
        summary[rule]["moved_at_last"] = _spread([one["moved"][-1] for one in own])
    return summary


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.mean(values), "deviation": statistics.stdev(values) if len(values) > 1 else None}


def draw(runs: Sequence[Mapping[str, Any]], chance: float) -> Figure:
    """F1 by step, how the state moves, and how the networks learned."""
    figure = Figure(figsize=(12.6, 4.0), layout="constrained")
    scores, moves, learned = figure.subplots(1, 3)
    for number, (rule, trained) in enumerate(STEPS.items()):
        own = [one for one in runs if one["rule"] == rule]
        for axes, name in ((scores, "f1"), (moves, "moved"), (learned, "validation_f1")):
            curves = [one[name] for one in own]
            for curve in curves:
                axes.plot(range(1, len(curve) + 1), curve, color=f"C{number}", alpha=0.3, linewidth=0.8)
            mean = [statistics.mean(column) for column in zip(*curves, strict=True)]
            axes.plot(range(1, len(mean) + 1), mean, STYLES[number], color=f"C{number}", linewidth=2, label=NAMES[rule])
            if axes is not learned:
                axes.plot(trained, mean[trained - 1], "o", color=f"C{number}")
    for axes in (scores, learned):
        axes.axhline(chance, color="0.5", linestyle=":", label="every bright pixel")
        axes.set_ylim(0, 1)
    scores.set(xlabel="steps (dots: those of training)", ylabel="F1 of test images", title="Running on")
    moves.set(xlabel="steps", ylabel="relative change of the state", yscale="log", title="Coming to rest")
    learned.set(xlabel="epochs", ylabel="F1 of validation images", title="Learning")
    for axes in (scores, moves, learned):
        axes.grid(alpha=0.3)
    scores.legend()
    return figure


def main() -> None:
    """Trains, runs on, draws, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--path-length", type=int, default=6)
    parser.add_argument("--longer", type=int, default=9, help="path length of the second test")
    parser.add_argument("--distractors", type=int, default=4)
    parser.add_argument("--train", type=int, default=1000, help="training images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--kernel", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=3e-2)
    parser.add_argument("--beyond", type=int, default=100, help="the last step of a test")
    parser.add_argument("--output", type=Path, default=RESULTS / "contour_dynamics", help="without a suffix")
    options = vars(parser.parse_args())
    if options["beyond"] < 2 * max(STEPS.values()):
        parser.error(
            f"need --beyond >= {2 * max(STEPS.values())}, twice the steps of training, got {options['beyond']}"
        )
    output = options.pop("output")
    workers, started = len(os.sched_getaffinity(0)), time.perf_counter()
    runs = []
    with tempfile.TemporaryDirectory() as root:
        data = trial_of("bptt", 0, options).data
        dataset = data.load(Path(root))
        trial_of("bptt", 0, options, path_length=options["longer"]).data.load(Path(root))
        chance = every_bright_pixel(dataset)
        print(f"every bright pixel: F1 {chance['f1']:.3f}")
        jobs = [(rule, seed) for seed in range(options["seeds"]) for rule in reversed(list(STEPS))]  # the longest first
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for done in as_completed([pool.submit(run, rule, seed, options, root) for rule, seed in jobs]):
                one = done.result()
                runs.append(one)
                trained = STEPS[one["rule"]]
                print(
                    f"{len(runs)} of {len(jobs)}: {one['rule']:7} seed {one['seed']}: {one['cpu_seconds']:.0f} s, "
                    f"F1 at step {trained} {one['f1'][trained - 1]:.3f}, at {options['beyond']} {one['f1'][-1]:.3f}",
                    flush=True,
                )
    runs.sort(key=lambda one: (list(STEPS).index(one["rule"]), one["seed"]))
    summary = summarize(runs, options["beyond"])
    content = {
        "question": "F1 and IoU of the marked path's pixels by step, far beyond training, for each learning rule",
        "options": options,
        "trials": {rule: trial_of(rule, 0, options).to_dict() for rule in STEPS},
        "every_bright_pixel": chance,
        "summary": summary,
        "wall_seconds": time.perf_counter() - started,
        "runs": runs,
        "made": {**made(("torch",)), "processes": workers},
    }
    output.with_suffix(".json").write_text(json.dumps(rounded(content), indent=1) + "\n")
    draw(runs, chance["f1"]).savefig(output.with_suffix(".png"), dpi=110)
    for rule, found in summary.items():
        f1 = found["f1"]
        print(f"{rule:7} F1 {f1['trained']['mean']:.3f} at step {found['steps']}, {f1['last']['mean']:.3f} at the last")


def rounded(value: Any) -> Any:
    """Five digits tell all that there is to tell."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
