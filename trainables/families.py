"""The table of model families: name -> config class. A new family is one file in models/ and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from trainables.family import FamilyConfig
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.models.spatial_rnn import SpatialRNNConfig

FAMILIES: Mapping[str, type[FamilyConfig]] = {
    "narrow_resnet": NarrowResNetConfig,
    "spatial_rnn": SpatialRNNConfig,
}
