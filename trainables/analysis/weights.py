"""Histograms of a model's weights, layer by layer.

O. Vila Clarà, "The effect of spatial RNNs on neural network feature maps", figures 4.14 and 4.15: small weights in the
full range of learning rates, large ones in the truncated range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from trainables.analysis.analysis import Analysis, png
from trainables.data.dataset import Dataset
from trainables.saved_model import SavedModel

BINS = 60
MOST_LAYERS = 6


def weights(models: Sequence[SavedModel], dataset: Dataset) -> Analysis:  # noqa: ARG001 - weights need no data
    """A histogram for every layer with weights, the last `MOST_LAYERS` of them pictured; a row of the picture a model.

    Numbers, by layer and model: `count`, `mean`, `deviation`, `largest` (absolute value), `edges` and `counts`.
    """
    layers: dict[str, list[dict[str, Any]]] = {}
    for model in models:
        for name, module in model.module.named_modules():
            own = [p.detach().flatten() for part, p in module.named_parameters(recurse=False) if "bias" not in part]
            if own:
                values = np.concatenate([part.float().cpu().numpy() for part in own])
                layers.setdefault(name, []).append(_histogram(model, values))
    pictured = list(layers)[-MOST_LAYERS:]
    return Analysis(pictures={"weights": png(_picture(pictured, layers))} if pictured else {}, numbers=layers)


def _histogram(model: SavedModel, values: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
    counts, edges = np.histogram(values, bins=BINS)
    return {
        "model": f"learning rate {model.trial['train']['learning_rate']:g}",
        "count": len(values),
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        "largest": float(np.abs(values).max()),
        "edges": [float(edge) for edge in edges],
        "counts": [int(count) for count in counts],
    }


def _picture(names: Sequence[str], layers: dict[str, list[dict[str, Any]]]) -> Figure:
    rows = max(len(layers[name]) for name in names)
    figure = Figure(figsize=(1 + 3.2 * len(names), 0.4 + 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, len(names), squeeze=False)
    for column, name in enumerate(names):
        for row in range(rows):
            panel = panels[row][column]
            if row >= len(layers[name]):  # this model has no such layer
                panel.set_visible(False)
                continue
            found = layers[name][row]
            panel.stairs(np.array(found["counts"]) / found["count"], found["edges"], fill=True, color="#4477aa")
            panel.set_title(f"{found['model']}: {name or 'model'}", fontsize=8)
            panel.set(xlabel="weight", ylabel="share of weights")
    return figure
