"""How a recurrent network's state and answers go on, far beyond the steps that it was trained with.

Figure 1 of Linsley et al. 2020, "Stable and expressive recurrent vision models", and its extrapolation curves: the
score by step, the state space, the masks over time, and how far a state still moves after the last step of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import ks_2samp
from torch import Tensor

from trainables.analysis.analysis import Analysis, png
from trainables.data.dataset import Dataset, Split
from trainables.models.contour_rnn.network import ContourRNN
from trainables.saved_model import SavedModel

Numbers = npt.NDArray[np.float64]

BEYOND = 5
"""The longest run, in steps of training."""
SCORED, FOLLOWED, SHOWN = 256, 64, 6
"""Images of the test split that are scored, whose states are followed, and whose masks are shown."""
COORDINATES = 16_384
"""Of each state, at most: a fixed random choice, since the principal axes of whole states would fill the memory."""
TOGETHER = 16
SUBSPACE, ROUNDS = 12, 10
"""Axes that are sought together for the two leading ones, and how often they are turned towards them."""
BINS = 60
NEVER = np.nan
_STYLES = ("-", "--", "-.", ":")  # lines that lie on each other are both seen


@final
@dataclass(frozen=True, slots=True)
class Run:
    """One model, far beyond its training."""

    name: str
    trained: int
    """N, the steps of training."""
    scores: Numbers
    """Of the task's first metric after step 1, 2, ..., T."""
    states: npt.NDArray[np.float32]
    """Followed images' states by image and step, `[images, T, coordinates]`."""
    appeared: Numbers
    """The first step since which a pixel stays in the mask at step T, else NaN; `[shown, h, w]`, none shown: `[0]`."""
    images: npt.NDArray[np.uint8]
    """What was shown to it, `[shown, h, w]`."""

    @property
    def distances(self) -> Numbers:
        """Of each followed image's states at steps N and T, relative to the length of the former."""
        before, after = self.states[:, self.trained - 1], self.states[:, -1]
        moved = np.linalg.norm(after - before, axis=1) / np.maximum(np.linalg.norm(before, axis=1), 1e-12)
        found: Numbers = np.nan_to_num(moved.astype(np.float64), nan=np.inf)
        return found


@final
@dataclass(frozen=True, slots=True)
class Projected:
    """A run's states on the two leading eigenvectors of their covariance."""

    places: Numbers
    """`[images, T, 2]`."""
    shares: Numbers
    """Of the variance, `[2]`."""


def dynamics(models: Sequence[SavedModel], dataset: Dataset, *, steps: int | None = None) -> Analysis:
    """Runs recurrent models on the first test images, for `steps` steps (by default five times those of training).

    Raises:
        ValueError: a model is not recurrent, answers another task than the dataset poses, or learned by more steps.
    """
    for model in models:
        if not isinstance(model.module, ContourRNN):
            raise ValueError(f"need models of the family contour_rnn, got {model.family}")
        if model.task.kind != dataset.task.kind:
            raise ValueError(f"need models that answer {dataset.task.kind}, got one that answers {model.task.kind}")
    trained = [model.module.steps for model in models if isinstance(model.module, ContourRNN)]
    last = steps or BEYOND * max(trained)
    if last < max(trained):
        raise ValueError(f"need steps >= {max(trained)}, those of training, got {last}")
    runs = [_run(model, dataset, name, last) for model, name in zip(models, _names(models), strict=True)]
    projected = [_projected(run) for run in runs]
    metric = next(iter(dataset.task.METRICS))
    pictures = {"scores": png(_draw_scores(runs, metric)), "state-space": png(_draw_spaces(runs, projected))}
    if len(runs) > 1:
        pictures["distances"] = png(_draw_distances(runs))
    if runs[0].appeared.ndim == 3:
        pictures["masks"] = png(_draw_masks(runs))
    return Analysis(pictures, _numbers(runs, projected, metric))


def _names(models: Sequence[SavedModel]) -> list[str]:
    """The learning rule where it tells the models apart, else also their place."""
    rules = [str(model.config.to_dict()["rule"]) for model in models]
    return [rule if rules.count(rule) == 1 else f"{rule} {number}" for number, rule in enumerate(rules, start=1)]


@torch.inference_mode()
def _run(model: SavedModel, dataset: Dataset, name: str, steps: int) -> Run:
    module = model.module
    assert isinstance(module, ContourRNN)
    measured: list[dict[str, list[Tensor]]] = [{} for _ in range(steps)]
    states: list[npt.NDArray[np.float32]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    chosen: Tensor | None = None
    for start, images, targets in _batches(dataset.test, min(SCORED, len(dataset.test))):
        run = module.dynamics(model.preprocessing.normalize(images))
        followed = max(0, min(FOLLOWED - start, len(images)))
        for t, state in enumerate(module.trajectory(run, steps)):
            outputs = module.read_out(state, run)
            for key, values in model.task.measure(outputs, targets).items():
                measured[t].setdefault(key, []).append(values)
            flat = state.flatten(1)
            if chosen is None:
                some = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0))[:COORDINATES]
                chosen = some.sort().values
            if followed:
                states.append(flat[:followed][:, chosen].numpy())
            if outputs.dim() == 4 and start < SHOWN:
                masks.append((outputs[: SHOWN - start, 1] > outputs[: SHOWN - start, 0]).numpy())
    metric = next(iter(model.task.METRICS))
    summaries = [model.task.summarize({key: torch.cat(parts) for key, parts in of.items()}) for of in measured]
    return Run(
        name=name,
        trained=module.steps,
        scores=np.array([summary[metric] for summary in summaries]),
        states=_by_image(states, steps),
        appeared=_appeared(_by_image(masks, steps)) if masks else np.empty(0),
        images=np.array(dataset.test.images[:SHOWN, 0]),
    )


def _batches(split: Split, count: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    for start in range(0, count, TOGETHER):
        rows = slice(start, min(start + TOGETHER, count))
        yield start, torch.from_numpy(np.array(split.images[rows])), torch.from_numpy(np.array(split.targets[rows]))


def _by_image(parts: Sequence[npt.NDArray[Any]], steps: int) -> npt.NDArray[Any]:
    """`[images, steps, ...]` from parts `[some images, ...]` that came step by step, batch after batch."""
    batches = [np.stack(parts[i : i + steps], axis=1) for i in range(0, len(parts), steps)]
    return np.concatenate(batches)


def _appeared(masks: npt.NDArray[np.bool_]) -> Numbers:
    """From masks `[n, T, h, w]`, the first step since which each pixel of the last one has been in it."""
    steps = masks.shape[1]
    stays = np.flip(np.logical_and.accumulate(np.flip(masks, axis=1), axis=1), axis=1)
    return np.where(masks[:, -1], steps - stays.sum(axis=1) + 1.0, NEVER)


def _projected(run: Run) -> Projected:
    """By subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4): no matrix of all pairs of states."""
    rows = np.nan_to_num(run.states.reshape(-1, run.states.shape[2]))
    scale = max(float(rows.max()), -float(rows.min()), 1e-30)  # of a state that explodes no square is a number
    rows /= scale
    rows -= rows.mean(axis=0)
    axes = np.random.default_rng(0).standard_normal((rows.shape[1], SUBSPACE), np.float32)
    for _ in range(ROUNDS):
        axes, _ = np.linalg.qr(rows.T @ (rows @ axes))
    vectors, values, _ = np.linalg.svd((rows @ axes).astype(np.float64), full_matrices=False)
    places = vectors[:, :2] * values[:2] * scale
    variance = np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64)
    return Projected(places.reshape(*run.states.shape[:2], 2), values[:2] ** 2 / max(variance, 1e-30))


def _draw_scores(runs: Sequence[Run], metric: str) -> Figure:
    figure = Figure(figsize=(6.4, 4.0))
    axes = figure.subplots()
    for number, run in enumerate(runs):
        colour = f"C{number}"
        axes.plot(range(1, len(run.scores) + 1), run.scores, _STYLES[number % 4], color=colour, label=run.name)
        axes.plot(run.trained, run.scores[run.trained - 1], "o", color=colour)
    axes.set_xlabel("steps (dots: those of training)")
    axes.set_ylabel(metric.replace("_", " "))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(title="learning rule")
    return figure


def _draw_spaces(runs: Sequence[Run], projected: Sequence[Projected]) -> Figure:
    figure = Figure(figsize=(4.2 * len(runs), 4.2), layout="constrained")
    for axes, run, space in zip(np.atleast_1d(figure.subplots(1, len(runs))), runs, projected, strict=True):
        _draw_space(axes, space.places, run.trained)
        axes.set_title(run.name)
        axes.set_xlabel(f"first axis ({space.shares[0]:.0%} of the variance)")
        axes.set_ylabel(f"second axis ({space.shares[1]:.0%})")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _draw_space(axes: Axes, places: Numbers, trained: int) -> None:
    flat = places.reshape(-1, 2)
    low, high = flat.min(axis=0), flat.max(axis=0)
    margin = np.maximum((high - low) * 0.08, 1e-9)
    edges = [np.linspace(low[i] - margin[i], high[i] + margin[i], BINS + 1) for i in range(2)]
    everything, _, _ = np.histogram2d(flat[:, 0], flat[:, 1], bins=edges)
    axes.pcolormesh(*edges, np.log1p(everything.T), cmap="Greys", rasterized=True)
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    for part, colour, label in (
        (places[:, :trained], "tab:red", "as many steps as in training"),
        (places[:, trained:], "tab:blue", f"beyond, until step {places.shape[1]}"),
    ):
        part = part.reshape(-1, 2)
        density, _, _ = np.histogram2d(part[:, 0], part[:, 1], bins=edges)
        smooth = cv2.GaussianBlur(density, (0, 0), 1.5)
        if smooth.max() > 0:
            axes.contour(*middles, smooth.T, levels=smooth.max() * np.array([0.05, 0.2, 0.5]), colors=colour)
        axes.plot([], [], color=colour, label=label)
    path = places[0]
    axes.plot(path[:, 0], path[:, 1], "-", color="gold", linewidth=2, label="one image")
    axes.plot(path[trained - 1, 0], path[trained - 1, 1], "o", color="gold", markeredgecolor="black")


def _draw_distances(runs: Sequence[Run]) -> Figure:
    figure = Figure(figsize=(6.4, 4.0))
    axes = figure.subplots()
    for number, run in enumerate(runs):
        distances = np.sort(run.distances[np.isfinite(run.distances)])
        share = np.arange(1, len(distances) + 1) / len(run.distances)
        axes.step(distances, share, _STYLES[number % 4], where="post", color=f"C{number}", label=run.name)
    axes.set_xscale("log")
    axes.set_xlabel("distance of the states at the last steps of training and of the run, relative")
    axes.set_ylabel("share of images")
    axes.grid(alpha=0.3)
    axes.legend(title="learning rule")
    return figure


def _draw_masks(runs: Sequence[Run]) -> Figure:
    shown = len(runs[0].images)
    steps = len(runs[0].scores)
    figure = Figure(figsize=(1.6 * shown + 1.2, 1.6 * (len(runs) + 1)), layout="constrained")
    grid = figure.subplots(len(runs) + 1, shown, squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    for axes, image in zip(grid[0], runs[0].images, strict=True):
        axes.imshow(image, cmap="gray")
    grid[0, 0].set_ylabel("image")
    for row, run in zip(grid[1:], runs, strict=True):
        row[0].set_ylabel(run.name)
        for axes, appeared in zip(row, run.appeared, strict=True):
            axes.set_facecolor("0.92")
            drawn = axes.imshow(appeared, cmap="viridis", vmin=1, vmax=steps, interpolation="nearest")
    figure.colorbar(drawn, ax=grid[1:], label="in the mask since step", shrink=0.8)
    return figure


def _numbers(runs: Sequence[Run], projected: Sequence[Projected], metric: str) -> dict[str, Any]:
    models = {
        run.name: {
            "trained_steps": run.trained,
            metric: [float(score) for score in run.scores],
            "distance_median": _plain(float(np.median(run.distances))),
            "variance_shares": [float(share) for share in space.shares],
            "images": len(run.distances),
        }
        for run, space in zip(runs, projected, strict=True)
    }
    tests = [
        {"models": [a.name, b.name], "statistic": float(found.statistic), "p_value": float(found.pvalue)}
        for a, b in combinations(runs, 2)
        for found in [ks_2samp(a.distances, b.distances)]
    ]
    return {"metric": metric, "models": models, "kolmogorov_smirnov_of_distances": tests}


def _plain(number: float) -> float | None:
    """JSON knows no infinity; a state that left every bound has no distance."""
    return number if np.isfinite(number) else None
