"""Specs that the tests change, and what is wrong with one."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import InvalidSpec
from service.spec import SweepSpec

BASE: dict[str, Any] = {"name": "first", "family": "narrow_resnet", "data": {"name": "digits"}}
RICH: dict[str, Any] = {
    "name": "nrn18.on-digits_1",
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 16, "validation": 200},
    "fixed": {"model.residual": False, "train.max_epochs": 5, "data.test": 100},
    "space": {
        "model.channels": {"kind": "choice", "values": [[8, 16, 16, 16], [16, 32, 32, 32]]},
        "train.learning_rate": {"kind": "float", "low": 1e-4, "high": 0.02, "log": True},
        "train.weight_decay": {"kind": "float", "low": 0.0, "high": 0.3, "step": 0.1},
        "train.momentum": {"kind": "float", "low": 0.5, "high": 0.9, "when": {"train.optimizer": "sgd"}},
        "train.optimizer": {"kind": "choice", "values": ["adam", "sgd"], "when": {"model.residual": False}},
        "train.batch_size": {"kind": "int", "low": 16, "high": 128, "log": True},
        "data.train": {"kind": "int", "low": 100, "high": 1100, "step": 100},
    },
    "search": {"sampler": "random", "trials": 7, "seed": 3},
    "stop": {"pruner": "none", "grace_period": 2, "reduction_factor": 3, "patience": 4, "time_budget": "1h30m"},
    "objectives": [{"metric": "validation/loss", "mode": "min"}],
    "resources": {"cpus": 2, "gpus": 0.25},
}
BATCH_SIZES = {"kind": "choice", "values": [32, 64]}


def faults(document: Any) -> dict[str, str]:
    """The messages of a bad document by their JSON pointers."""
    with pytest.raises(InvalidSpec) as caught:
        SweepSpec.from_dict(document)
    return {fault.pointer: fault.message for fault in caught.value.faults}


def with_space(**parameters: Any) -> dict[str, Any]:
    """The smallest spec with this space; `__` stands for the dot of a name."""
    return BASE | {"space": {name.replace("__", "."): value for name, value in parameters.items()}}
