"""A trained model as a folder: `model.safetensors` with the weights, `model.json` with all else. No code, no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainables.data.dataset import Dataset
from trainables.families import FAMILIES
from trainables.family import FamilyConfig
from trainables.folder import write_folder
from trainables.preprocessing import Preprocessing
from trainables.tasks import Task, task_from_dict
from trainables.trial import TrialConfig

FORMAT = "sweepserve-model-1"
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
LARGEST_BATCH = 256


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model that answers questions about images, exactly as it was validated in training."""

    module: nn.Module
    """In eval mode."""
    family: str
    config: FamilyConfig
    task: Task
    preprocessing: Preprocessing
    trial: Mapping[str, Any]
    """The trial that trained it, as plain data."""
    step: int
    """The epoch of its weights."""
    metrics: Mapping[str, float]
    """As measured at that epoch."""

    def outputs(self, images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """The model's numbers for uint8 images of any size, grey `[h, w]` or RGB `[h, w, 3]`: logits `[n, k]`, say.

        Raises:
            ValueError: an array is not such an image.
        """
        device = next(self.module.parameters()).device
        fitted = [torch.from_numpy(self.preprocessing.fit(image)) for image in images]
        outputs = [torch.empty(0, self.task.outputs, device=device)] if not images else []
        with torch.inference_mode():
            for start in range(0, len(fitted), LARGEST_BATCH):
                batch = torch.stack(fitted[start : start + LARGEST_BATCH]).to(device)
                inputs = self.preprocessing.normalize(batch).contiguous(memory_format=torch.channels_last)
                outputs.append(self.module(inputs))
            return torch.cat(outputs)

    def predict(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """One answer an image (see the task's `answers`). Arguments and errors are those of `outputs`."""
        return self.task.answers(self.outputs(images))


def model_files(
    *,
    trial: TrialConfig,
    dataset: Dataset,
    weights: Mapping[str, Tensor],
    step: int,
    metrics: Mapping[str, float],
    model: FamilyConfig | None = None,
    lineage: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """The files of a saved model, by name.

    Args:
        trial: what was trained.
        dataset: what it was trained on; its task and preprocessing go with the model.
        weights: the module's state dict, on the CPU, no two tensors sharing memory.
        step: the epoch of the weights.
        metrics: measured at that epoch.
        model: the config of the module that the weights belong to; None: the trial's.
        lineage: of weights that were copied from other trials: with which settings those were trained before.
    """
    from safetensors.torch import save  # here, so that training needs no safetensors

    content: bytes = save(dict(weights))
    description = {
        "format": FORMAT,
        "family": trial.family,
        "model": (model or trial.model).to_dict(),
        "task": dataset.task.to_dict(),
        "preprocessing": dataset.preprocessing.to_dict(),
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "trial": trial.to_dict(),
        "lineage": list(lineage),
        "step": step,
        "metrics": dict(metrics),
    }
    return {WEIGHTS: content, DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode()}


def save_model(
    folder: Path,
    *,
    trial: TrialConfig,
    dataset: Dataset,
    weights: Mapping[str, Tensor],
    step: int,
    metrics: Mapping[str, float],
) -> None:
    """Writes the folder whole or not at all; arguments as of `model_files`."""
    write_folder(folder, model_files(trial=trial, dataset=dataset, weights=weights, step=step, metrics=metrics))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a saved model's folder or in a safetensors file.

    Raises:
        ValueError: there is no such thing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / WEIGHTS if path.is_dir() else path
    try:
        return dict(load_file(file))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"need a saved model or a safetensors file at {path}: {error}") from error


def load_model(folder: Path, *, device: torch.device | None = None) -> SavedModel:
    """The model saved in a folder, on the CPU unless told otherwise.

    Raises:
        FileNotFoundError: a file of it is missing.
        ValueError: the files are not a saved model, or were altered.
    """
    from safetensors.torch import load

    description = json.loads((folder / DESCRIPTION).read_text())
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"need a {DESCRIPTION} of format {FORMAT} in {folder}")
    content = (folder / WEIGHTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != description["weights_sha256"]:
        raise ValueError(f"{folder / WEIGHTS} is not the file that {DESCRIPTION} describes")
    config = FAMILIES[description["family"]].from_dict(description["model"])
    task = task_from_dict(description["task"])
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    with torch.random.fork_rng(devices=[]):  # the initial weights that building draws are thrown away
        module = config.build(input_shape=preprocessing.input_shape, outputs=task.outputs)
    module.load_state_dict(load(content))
    module = module.to(device or torch.device("cpu")).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return SavedModel(
        module=module.eval().requires_grad_(False),
        family=description["family"],
        config=config,
        task=task,
        preprocessing=preprocessing,
        trial=description["trial"],
        step=description["step"],
        metrics=description["metrics"],
    )
