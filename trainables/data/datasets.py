"""The table of datasets: name -> config class. A new dataset is one file here and one row."""

from __future__ import annotations

from collections.abc import Mapping

from trainables.data.cabc import ClutteredABC
from trainables.data.cambridge import Cambridge
from trainables.data.cifar10 import CIFAR10
from trainables.data.coco_panoptic import CocoPanoptic
from trainables.data.dataset import DatasetConfig
from trainables.data.digits import Digits
from trainables.data.mnist import MNIST
from trainables.data.pathfinder import Pathfinder
from trainables.data.scenes import Scenes
from trainables.data.synthetic_scene import SyntheticScene

DATASETS: Mapping[str, type[DatasetConfig]] = {
    "cabc": ClutteredABC,
    "cambridge": Cambridge,
    "cifar10": CIFAR10,
    "coco_panoptic": CocoPanoptic,
    "digits": Digits,
    "mnist": MNIST,
    "pathfinder": Pathfinder,
    "scenes": Scenes,
    "synthetic_scene": SyntheticScene,
}
