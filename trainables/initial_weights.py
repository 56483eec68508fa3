"""Starting from another model's weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from trainables.saved_model import read_weights

SHOWN = 5


def load_initial_weights(model: nn.Module, path: Path) -> None:
    """Gives the model the weights of a saved model (its folder, or a safetensors file).

    Raises:
        ValueError: there is no such file, or it is of another model; names the tensors that do not fit.
    """
    try:
        weights, own = read_weights(path), model.state_dict()
    except ValueError as error:
        raise ValueError(f"train.initial_weights: {error}") from error
    theirs = {name: list(tensor.shape) for name, tensor in weights.items()}
    ours = {name: list(tensor.shape) for name, tensor in own.items()}
    unfit = [
        f"{name} is {theirs.get(name, 'absent')}, need {ours.get(name, 'it absent')}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if unfit:
        more = f"; and {len(unfit) - SHOWN} more" if len(unfit) > SHOWN else ""
        raise ValueError(f"train.initial_weights: {path} does not fit the model: {'; '.join(unfit[:SHOWN])}{more}")
    model.load_state_dict(weights)
