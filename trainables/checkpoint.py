"""Checkpoints: folders from which a training continues exactly, and from whose `model/` its best weights are served.

checkpoint-000007/
  checkpoint.json       SHA-256 of every other file
  state.json            the trial, and the metrics of every step (NaN and Infinity as Python's json writes them); where
                        the weights were copied from another trial, with which settings those before were trained
  state.safetensors     weights/<name>, optimizer/<number>.<name>
  model/                the saved model with the best weights so far; absent while there are none
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from trainables.config import ConfigError
from trainables.folder import temporary_siblings, write_folder
from trainables.saved_model import WEIGHTS, model_files
from trainables.training import Training
from trainables.training_state import TrainingState
from trainables.trial import TrialConfig

FORMAT = "sweepserve-checkpoint-3"
MODEL = "model"
_INDEX, _VALUES, _TENSORS = "checkpoint.json", "state.json", "state.safetensors"
_STEM = "checkpoint-"


class CorruptCheckpoint(ValueError):  # noqa: N818 - it says what is the matter
    """A checkpoint folder is not as it was written, or was never written whole."""


def write(folder: Path, training: Training) -> Path:
    """Writes `checkpoint-<step>` into a trial's folder, removes every other checkpoint there, and returns its path."""
    return _write(folder, training.step, _files(training))


def adopt(source: Path, folder: Path, *, name: str, trial: TrialConfig, step: int) -> Path:
    """Writes another trial's checkpoint into a trial's folder as its own, to go on from with its own settings.

    The weights, the optimizer and the history are the other's; which weights are kept is open again, since those that
    are kept of a trial are to be its own. Again, it changes nothing, also when the other has gone on meanwhile.

    Args:
        source: the other's checkpoint.
        folder: the trial's; its other checkpoints are removed.
        name: the other's id.
        trial: the trial's settings from now on; its network must be the other's.
        step: the last step of the other's that counts.

    Raises:
        CorruptCheckpoint: there is none of that step, or it is not as it was written.
    """
    path = folder / f"{_STEM}{step:06d}"
    with suppress(CorruptCheckpoint):
        own = read(path)
        last = own.lineage[-1] if own.lineage else {}
        if own.trial == trial.to_dict() and (last.get("source"), last.get("step")) == (name, step):
            return path
    files = _checked_files(source)
    values = json.loads(files[_VALUES])
    if values["step"] != step:
        raise CorruptCheckpoint(f"need a checkpoint of step {step}, {source} is of {values['step']}")
    before = {"source": name, "step": step, "trial": values["trial"]}
    values["lineage"] = [*values.get("lineage", ()), before]
    values |= {"trial": trial.to_dict(), "kept": trial.model.to_dict(), "best_step": None, "best_metrics": {}}
    return _write(folder, step, _indexed({_VALUES: json.dumps(values).encode(), _TENSORS: files[_TENSORS]}))


def read(path: Path) -> TrainingState:
    """What `write` wrote; settings that its trial did not have yet, in an earlier version, have their defaults.

    Raises:
        CorruptCheckpoint: a file is missing or differs from what was written.
    """
    from safetensors.torch import load

    files = _checked_files(path)
    values = json.loads(files[_VALUES])
    with suppress(ConfigError):  # where a setting is gone or no longer legal, it is no trial of now
        values["trial"] = TrialConfig.from_dict(values["trial"]).to_dict()
    history = {int(step): metrics for step, metrics in values.pop("history").items()}
    tensors = load(files[_TENSORS])
    best = files.get(f"{MODEL}/{WEIGHTS}")
    return TrainingState(
        **values,
        history=history,
        weights={name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")},
        optimizer={name.removeprefix("optimizer/"): t for name, t in tensors.items() if name.startswith("optimizer/")},
        best_weights=load(best) if best is not None else {},
    )


def newest_first(folder: Path) -> list[Path]:
    """All checkpoints in a trial's folder, whole or not."""
    found = [path for path in folder.glob(f"{_STEM}*") if re.fullmatch(rf"{_STEM}\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_STEM)), reverse=True)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in a trial's folder that is whole, or None."""
    for path in newest_first(folder):
        try:
            _checked_files(path)
        except CorruptCheckpoint:
            continue
        return path
    return None


def _files(training: Training) -> dict[str, bytes]:
    from safetensors.torch import save  # here, so that training needs no safetensors

    state = training.state()
    values = {
        "trial": state.trial,
        "step": state.step,
        "history": state.history,
        "best_step": state.best_step,
        "best_metrics": state.best_metrics,
        "kept": state.kept,
        "lineage": list(state.lineage),
    }
    tensors = {f"weights/{name}": tensor for name, tensor in state.weights.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    files = {_VALUES: json.dumps(values).encode(), _TENSORS: save(tensors)}
    if state.best_step is not None:
        model = model_files(
            trial=training.config,
            model=training.kept,
            dataset=training.dataset,
            weights=state.best_weights,
            step=state.best_step,
            metrics=state.best_metrics,
            lineage=state.lineage,
        )
        files |= {f"{MODEL}/{name}": content for name, content in model.items()}
    return _indexed(files)


def _indexed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    index = {"format": FORMAT, "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}
    return {**files, _INDEX: json.dumps(index, indent=2).encode()}


def _write(folder: Path, step: int, files: Mapping[str, bytes]) -> Path:
    path = folder / f"{_STEM}{step:06d}"
    write_folder(path, files)
    for other in [*folder.glob(f"{_STEM}*"), *temporary_siblings(folder, _STEM)]:
        if other != path:
            shutil.rmtree(other, ignore_errors=True)
    return path


def _checked_files(path: Path) -> dict[str, bytes]:
    try:
        index = json.loads((path / _INDEX).read_bytes())
        if index["format"] != FORMAT:
            raise CorruptCheckpoint(f"{path}: need format {FORMAT}, got {index['format']!r}")
        files = {name: (path / name).read_bytes() for name in index["sha256"]}
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"{path} is not a whole checkpoint: {error}") from error
    for name, digest in index["sha256"].items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise CorruptCheckpoint(f"{path / name} is not as it was written")
    return files
