"""The table of datasets: name -> config class. A new dataset is one file here and one row."""

from __future__ import annotations

from collections.abc import Mapping

from trainables.data.cabc import ClutteredABC
from trainables.data.dataset import DatasetConfig
from trainables.data.digits import Digits
from trainables.data.pathfinder import Pathfinder

DATASETS: Mapping[str, type[DatasetConfig]] = {
    "cabc": ClutteredABC,
    "digits": Digits,
    "pathfinder": Pathfinder,
}
