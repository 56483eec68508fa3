"""What every ready-made study promises, at every corner of what it searches."""

from __future__ import annotations

import pytest
import torch

from search_spaces import studies, study
from service.spec import SweepSpec


@pytest.mark.parametrize("name", studies())
def test_every_corner_of_a_study_has_a_network_for_its_images(name: str) -> None:
    """Networks that cannot take a study's images would fail only once it runs; here they take no memory."""
    spec = SweepSpec.from_dict(study(name))
    for corner in spec.space.corners():
        trial = spec.trial(corner)
        shape, outputs = trial.data.preprocessing.input_shape, trial.data.task.outputs
        with torch.device("meta"):
            model = trial.model.build(input_shape=shape, outputs=outputs)
        assert any(parameter.requires_grad for parameter in model.parameters())
