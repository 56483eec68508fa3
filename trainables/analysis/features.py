"""How strongly features correlate before and after a layer: do recurrent layers make them more independent?

O. Vila Clarà, "The effect of spatial RNNs on neural network feature maps", section 5.3, which leaves this open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from trainables.analysis.analysis import Analysis, png
from trainables.data.dataset import Dataset
from trainables.four_directional_rnn import FourDirectionalRNN
from trainables.saved_model import SavedModel

MOST_IMAGES, MOST_FEATURES, BINS = 1000, 512, 50


def features(models: Sequence[SavedModel], dataset: Dataset) -> Analysis:
    """Absolute correlations over test images between pairs of features that the layer reads, and that it makes.

    The layer is the model's first four-directional RNN or, in models without one, the last layer before the read-out.
    At most `MOST_FEATURES` features, evenly spaced, stand for a longer vector; those that never change are left out.

    Numbers, by model: `layer`, and for `before` and `after` the `features` looked at, their `mean` absolute correlation
    and `counts` of pairs in equal bins from 0 to 1.

    Raises:
        ValueError: a model has fewer than two layers.
    """
    found = [_correlate(model, dataset) for model in models]
    return Analysis(pictures={"features": png(_picture(found))}, numbers={"models": found})


def correlations(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Absolute correlations of all pairs of features that vary; `values` are `[images, features]`."""
    spread = values.std(axis=0)
    varying = values[:, spread > 1e-9 * max(1.0, float(spread.max(initial=0.0)))]
    if varying.shape[1] < 2:
        return np.zeros(0)
    matrix = np.asarray(np.corrcoef(varying, rowvar=False))
    return np.abs(matrix[np.triu_indices(len(matrix), k=1)]).clip(0, 1)


def _correlate(model: SavedModel, dataset: Dataset) -> dict[str, Any]:
    name, layer = _layer(model.module)
    seen: dict[str, list[Tensor]] = {"before": [], "after": []}

    def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["before"].append(_some(inputs[0]))
        seen["after"].append(_some(output))

    handle = layer.register_forward_hook(note)
    try:
        images = dataset.test.images[:MOST_IMAGES]
        # Copies, since tensors are not made of read-only memory maps.
        model.outputs([np.array(image.transpose(1, 2, 0).squeeze()) for image in images])
    finally:
        handle.remove()
    result: dict[str, Any] = {"model": f"learning rate {model.trial['train']['learning_rate']:g}", "layer": name}
    for side, parts in seen.items():
        values = torch.cat(parts).double().cpu().numpy()
        pairs = correlations(values)
        counts, _ = np.histogram(pairs, bins=BINS, range=(0, 1))
        result[side] = {
            "features": values.shape[1],
            "mean": float(pairs.mean()) if len(pairs) else 0.0,
            "counts": [int(count) for count in counts],
        }
    return result


def _layer(module: nn.Module) -> tuple[str, nn.Module]:
    for name, part in module.named_modules():
        if isinstance(part, FourDirectionalRNN):
            return name, part
    layers = list(module.named_children())
    if len(layers) < 2:
        raise ValueError("features: need a model with a layer before its read-out")
    return layers[-2]


def _some(values: Tensor) -> Tensor:
    """Evenly spaced features of `[n, ...]`."""
    flat = values.detach().flatten(1)
    chosen = torch.linspace(0, flat.shape[1] - 1, min(flat.shape[1], MOST_FEATURES)).round().long()
    return flat[:, chosen.to(flat.device)]


def _picture(found: Sequence[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(1 + 4.2 * len(found), 3.6), layout="constrained")
    edges = np.linspace(0, 1, BINS + 1)
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for panel, one in zip(panels, found, strict=True):
        for side, colour in (("before", "#4477aa"), ("after", "#ee6677")):
            counts = np.array(one[side]["counts"])
            label = f"{side}: mean {one[side]['mean']:.2f}"
            panel.stairs(counts / max(1, counts.sum()), edges, fill=True, alpha=0.5, color=colour, label=label)
        panel.set_title(f"{one['model']}: {one['layer']}", fontsize=9)
        panel.set(xlabel="absolute correlation of two features", ylabel="share of pairs")
        panel.legend(frameon=False, fontsize=8)
    return figure
