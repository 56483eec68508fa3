"""The table of model families: name -> config class. A new family is one file in models/ and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from trainables.family import FamilyConfig
from trainables.models.contour_rnn.config import ContourRNNConfig
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.models.panoptic_fpn.config import PanopticFPNConfig
from trainables.models.pose_net import PoseNetConfig
from trainables.models.shared_resnet import SharedResNetConfig
from trainables.models.spatial_rnn import SpatialRNNConfig

FAMILIES: Mapping[str, type[FamilyConfig]] = {
    "contour_rnn": ContourRNNConfig,
    "narrow_resnet": NarrowResNetConfig,
    "panoptic_fpn": PanopticFPNConfig,
    "pose_net": PoseNetConfig,
    "shared_resnet": SharedResNetConfig,
    "spatial_rnn": SpatialRNNConfig,
}
