"""Starting from another model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from trainables.checked_text import confined
from trainables.saved_model import WEIGHTS, read_weights
from trainables.weights_name import WeightsName

SHOWN = 5


def find_initial_weights(name: WeightsName, folder: Path) -> Path:
    """Where the weights of this name are, links followed: a safetensors file, or a saved model's folder.

    Raises:
        ValueError: they, or what they link to, are not in the folder; or the name is a reference.
    """
    try:
        path = name.path.below(folder)
        if path.is_dir():
            confined(path / WEIGHTS, folder)
    except ValueError as error:
        raise ValueError(f"train.initial_weights: {error}") from error
    return path


def load_initial_weights(model: nn.Module, path: Path) -> None:
    """Gives the model the weights of a saved model (its folder, or a safetensors file).

    Raises:
        ValueError: there is no such file, or it is of another model; names the tensors that do not fit.
    """
    try:
        weights = read_weights(path)
    except ValueError as error:
        raise ValueError(f"train.initial_weights: {error}") from error
    misfit = misfits(model, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    if misfit:
        raise ValueError(f"train.initial_weights: {path} {misfit}")
    model.load_state_dict(weights)


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a saved model's folder or a safetensors file, from its header alone.

    Raises:
        ValueError: there is no such thing.
    """
    from safetensors import SafetensorError, safe_open

    file = path / WEIGHTS if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise ValueError("there is no such saved model or safetensors file") from None
    except (OSError, SafetensorError) as error:
        raise ValueError(f"need a saved model or a safetensors file: {error}") from error


def misfits(model: nn.Module, theirs: Mapping[str, tuple[int, ...]]) -> str:
    """What keeps tensors of these shapes from being the model's weights, the first few by name; empty: nothing."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    unfit = [
        f"{name} is {_shown(theirs.get(name), 'absent')}, need {_shown(ours.get(name), 'it absent')}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    more = f"; and {len(unfit) - SHOWN} more" if len(unfit) > SHOWN else ""
    return f"does not fit the model: {'; '.join(unfit[:SHOWN])}{more}" if unfit else ""


def _shown(shape: tuple[int, ...] | None, absent: str) -> str:
    return absent if shape is None else str(list(shape))
