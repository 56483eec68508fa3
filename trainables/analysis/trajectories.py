"""Where images go in the representation space of a level, block by block.

"Towards Efficient Recurrent Visual Models", section 4.4 and figures 4 and 5. Within a level all representations live in
one space, so principal components of all of them together show each image's way through the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trainables.analysis.analysis import Analysis, png
from trainables.analysis.shared_resnets import networks
from trainables.data.dataset import Dataset
from trainables.models.shared_resnet import LEVELS, SharedResNet
from trainables.saved_model import SavedModel
from trainables.tasks import Classification

IMAGES = 100
"""Of the training split, as in the paper."""
VERSIONS = ("unnormalised", "normalised")
Array = npt.NDArray[np.float64]


def trajectories(models: Sequence[SavedModel], dataset: Dataset) -> Analysis:
    """Of each model a picture of its levels (columns), as they are and without the drift that all images share (rows).

    `numbers` has the images' `classes` and, by model, level and version: `coordinates` `[images][1 + blocks][2]`,
    `explained` (the two components' shares of the variance) and `smoothness`: the mean cosine between an image's steps
    through successive blocks, 1 where it goes straight on; null where there is one block.

    Raises:
        ValueError: a model is of another family, or not asked for classes.
    """
    if not isinstance(dataset.task, Classification):
        raise ValueError(f"need a dataset of classes, got {dataset.name}")
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset.train))[:IMAGES])
    images = dataset.preprocessing.normalize(torch.from_numpy(dataset.train.images[chosen]))
    classes = dataset.train.targets[chosen]
    pictures, found = {}, {}
    for number, (name, module) in enumerate(networks(models), 1):
        found[name] = _of_model(module, images)
        figure = _figure(name, found[name], classes, dataset.task.classes)
        pictures["trajectories" if len(models) == 1 else f"trajectories-{number}"] = png(figure)
    return Analysis(pictures, {"classes": classes.tolist(), "models": found})


def principal_components(products: Array) -> tuple[Array, Array]:
    """Two components `[points, 2]` and their shares of the variance, of points by their inner products `[p, p]`.

    The inner products must be those of points whose mean is zero. Of each component the largest value is positive.
    """
    values, vectors = np.linalg.eigh(products)
    largest = [-1, -2]
    coordinates = vectors[:, largest] * np.sqrt(np.maximum(values[largest], 0))
    signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), [0, 1]])
    return coordinates * signs, values[largest] / np.trace(products)


def smoothness(products: Array) -> float | None:
    """The mean cosine between successive steps, from inner products `[n, t, n, t]` of n trajectories of t points."""
    own = np.einsum("isit->ist", products)
    steps = own[:, 1:, 1:] - own[:, 1:, :-1] - own[:, :-1, 1:] + own[:, :-1, :-1]
    lengths = np.sqrt(np.maximum(np.einsum("iss->is", steps), 0))
    between = np.einsum("iss->is", steps[:, :-1, 1:])
    sizes = lengths[:, :-1] * lengths[:, 1:]
    moved = sizes > 0  # else there is no direction
    return float((between[moved] / sizes[moved]).mean()) if moved.any() else None


@torch.inference_mode()
def _of_model(module: SharedResNet, images: torch.Tensor) -> dict[str, dict[str, Any]]:
    device = next(module.parameters()).device
    inputs = images.to(device).contiguous(memory_format=torch.channels_last)
    found: dict[str, dict[str, Any]] = {}
    for level, states in zip(LEVELS, module.representations(inputs), strict=True):
        n, t = states.shape[:2]
        points = states.flatten(2).flatten(0, 1)
        points = points - points.mean(0)
        # Inner products say all that is needed, and are far fewer than the numbers of the representations.
        products = (points @ points.T).double().cpu().numpy().reshape(n, t, n, t)
        by_place = products.mean(0, keepdims=True), products.mean(2, keepdims=True)
        without_drift = products - by_place[0] - by_place[1] + products.mean((0, 2), keepdims=True)
        found[level] = {}
        for version, of_version in zip(VERSIONS, (products, without_drift), strict=True):
            coordinates, explained = principal_components(of_version.reshape(n * t, n * t))
            found[level][version] = {
                "coordinates": coordinates.reshape(n, t, 2).tolist(),
                "explained": explained.tolist(),
                "smoothness": smoothness(of_version),
            }
    return found


def _figure(name: str, found: dict[str, dict[str, Any]], classes: npt.NDArray[Any], words: Sequence[str]) -> Figure:
    figure = Figure(figsize=(15, 9.5), layout="constrained")
    figure.suptitle(f"Trajectories of {len(classes)} images through the blocks of each level: {name}")
    palette = colormaps["tab10" if len(words) <= 10 else "tab20"]
    colours = np.array([palette(int(c) % palette.N) for c in classes])
    for row, version in zip(figure.subplots(len(VERSIONS), len(LEVELS)), VERSIONS, strict=True):
        for axes, level in zip(row, LEVELS, strict=True):
            _draw(axes, found[level][version], colours)
            axes.set_title(f"{level} level, {version}")
    handles = [
        Line2D([], [], linestyle="", marker="o", color=palette(number % palette.N), label=word)
        for number, word in enumerate(words)
        if number in classes
    ]
    figure.legend(handles=handles, loc="outside right upper", title="class", frameon=False)
    return figure


def _draw(axes: Axes, found: dict[str, Any], colours: Array) -> None:
    points = np.array(found["coordinates"])
    starts, steps, ends = points[:, :-1].reshape(-1, 2), np.diff(points, axis=1).reshape(-1, 2), points[:, -1]
    of_starts = np.repeat(colours, points.shape[1] - 1, axis=0)
    arrows: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.0016, "headwidth": 5}
    axes.quiver(*starts.T, *steps.T, color=of_starts, alpha=0.55, **arrows)
    axes.scatter(starts[:, 0], starts[:, 1], s=3, c=of_starts, linewidths=0)
    axes.scatter(ends[:, 0], ends[:, 1], s=22, c=colours, edgecolors="black", linewidths=0.5, zorder=3)
    smooth = found["smoothness"]
    told = "" if smooth is None else f"smoothness {smooth:.2f}; "
    axes.set_xlabel(f"first component, {found['explained'][0]:.0%} of the variance\n({told}ends are ringed)")
    axes.set_ylabel(f"second component, {found['explained'][1]:.0%}")
    axes.margins(0.05)
