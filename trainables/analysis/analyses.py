"""The table of analyses: name -> function. A new analysis is one file here and one row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trainables.analysis.ablation import ablation
from trainables.analysis.analysis import Analysis
from trainables.analysis.dynamics import dynamics
from trainables.analysis.features import features
from trainables.analysis.trajectories import trajectories
from trainables.analysis.weights import weights
from trainables.data.dataset import Dataset
from trainables.saved_model import SavedModel

ANALYSES: Mapping[str, Callable[[Sequence[SavedModel], Dataset], Analysis]] = {
    "ablation": ablation,
    "dynamics": dynamics,
    "features": features,
    "trajectories": trajectories,
    "weights": weights,
}
