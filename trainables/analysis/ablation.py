"""How good a network stays whose residual blocks are switched off.

"Towards Efficient Recurrent Visual Models", section 4.3 and figure 3: a block that is off leaves its shortcut only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from trainables.analysis.analysis import Analysis, png
from trainables.analysis.shared_resnets import networks
from trainables.data.dataset import Dataset
from trainables.models.shared_resnet import LEVELS, SharedResNet
from trainables.saved_model import SavedModel
from trainables.tasks import Task

IMAGES = 1000
"""Of the test split, at most: each is looked at three times a block."""
BATCH = 250
EXPERIMENTS = {
    "top-to-bottom": "blocks off, from the top down",
    "bottom-to-top": "blocks off, from the bottom up",
    "single": "the one block that is off",
}
"""What is on the horizontal axis of each."""
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
MARKERS = "osD^vPX"


def ablation(models: Sequence[SavedModel], dataset: Dataset) -> Analysis:
    """Of each level a picture of the models' three experiments, and the numbers in it.

    `numbers` has `images`, `metric` and, by model and level, `whole` and for each experiment a list: of top-to-bottom
    and bottom-to-top with 0, 1, 2, ... blocks off, of `single` with the first, the second, ... off.

    Raises:
        ValueError: a model is of another family.
    """
    named = networks(models)
    chosen = np.sort(np.random.default_rng(0).permutation(len(dataset.test))[:IMAGES])
    images = dataset.preprocessing.normalize(torch.from_numpy(dataset.test.images[chosen]))
    targets = torch.from_numpy(dataset.test.targets[chosen])
    metric = next(iter(dataset.task.METRICS))
    found: dict[str, dict[str, dict[str, list[float]]]] = {
        name: _of_model(module, images, targets, dataset.task, metric) for name, module in named
    }
    pictures = {f"ablation-{level}": png(_figure(found, number, metric)) for number, level in enumerate(LEVELS)}
    return Analysis(pictures, {"images": len(chosen), "metric": metric, "models": found})


@torch.inference_mode()
def _of_model(
    module: SharedResNet, images: Tensor, targets: Tensor, task: Task, metric: str
) -> dict[str, dict[str, list[float]]]:
    everything = [list(range(len(level.blocks))) for level in module.levels]
    device = next(module.parameters()).device
    batches = [
        (batch.to(device).contiguous(memory_format=torch.channels_last), wanted.to(device))
        for batch, wanted in zip(torch.split(images, BATCH), torch.split(targets, BATCH), strict=True)
    ]

    def measured(level: int, run: list[int]) -> float:
        runs = [run if number == level else every for number, every in enumerate(everything)]
        parts = [task.measure(module(batch, runs), wanted) for batch, wanted in batches]
        return task.summarize({name: torch.cat([part[name] for part in parts]) for name in parts[0]})[metric]

    return {
        LEVELS[level]: {
            "top-to-bottom": [measured(level, every[:left]) for left in range(len(every), -1, -1)],
            "bottom-to-top": [measured(level, every[off:]) for off in range(len(every) + 1)],
            "single": [measured(level, every[:off] + every[off + 1 :]) for off in every],
        }
        for level, every in enumerate(everything)
    }


def _figure(found: dict[str, dict[str, dict[str, list[float]]]], level: int, metric: str) -> Figure:
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panels = figure.subplots(1, len(EXPERIMENTS), sharey=True)
    for axes, (experiment, told) in zip(panels, EXPERIMENTS.items(), strict=True):
        first = 1 if experiment == "single" else 0
        for number, (name, of_model) in enumerate(found.items()):
            values = of_model[LEVELS[level]][experiment]
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            axes.plot(range(first, first + len(values)), values, label=name, markersize=4, linewidth=1.3, **style)
        axes.set(title=f"{experiment}, {LEVELS[level]} level", xlabel=told)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    panels[0].set(ylabel=f"test {metric}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure
