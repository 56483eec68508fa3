"""The table of analyses: name -> function. A new analysis is one file here and one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainables.analysis.ablation import ablation
from trainables.analysis.analysis import Analysis
from trainables.analysis.dynamics import dynamics
from trainables.analysis.features import features
from trainables.analysis.trajectories import trajectories
from trainables.analysis.weights import weights

ANALYSES: Mapping[str, Callable[..., Analysis]] = {
    "ablation": ablation,
    "dynamics": dynamics,
    "features": features,
    "trajectories": trajectories,
    "weights": weights,
}
"""Of saved models and a dataset; some take `steps` too, by name."""
