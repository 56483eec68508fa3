"""A trial's network without its numbers: what shows whether it can be made, long before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from trainables.config import Fault
from trainables.initial_weights import misfits, stored_shapes
from trainables.optimizers import parameter_groups
from trainables.trial import TrialConfig


def outline(trial: TrialConfig) -> nn.Module:
    """The trial's network on torch's meta device: shapes that take no memory.

    Raises:
        ValueError: the network cannot take the images of the trial's data.
    """
    with torch.device("meta"):
        return trial.model.build(input_shape=trial.data.preprocessing.input_shape, outputs=trial.data.task.outputs)


def network_faults(network: nn.Module, trial: TrialConfig, initial_weights: Path | None = None) -> Iterator[Fault]:
    """What is wrong with a trial that only its network shows, each with its place in the trial.

    Args:
        network: the trial's outline.
        trial: legal by its settings.
        initial_weights: where the weights are that `train.initial_weights` names; None: not looked at.
    """
    for module in trial.train.learning_rates:
        try:
            parameter_groups(network, {module: 1.0}, 1.0)
        except ValueError as error:
            message = str(error).removeprefix("train.learning_rates: ")
            yield Fault(("train", "learning_rates", module), message)
    if initial_weights is not None:
        try:
            misfit = misfits(network, stored_shapes(initial_weights))
        except ValueError as error:
            misfit = str(error)
        if misfit:
            yield Fault(("train", "initial_weights"), misfit)
