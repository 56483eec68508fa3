"""The training loop as Ray Tune runs it: the only file here that imports Ray."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, final

import ray
import torch
from ray import tune

from trainables import checkpoint
from trainables.allocator import keep_freed_memory, release_freed_memory
from trainables.data.dataset import Dataset
from trainables.training import Training
from trainables.trial import TrialConfig

logger = logging.getLogger(__name__)


class TrialSettings(TypedDict):
    """The Tune config of a trial."""

    trial_id: str
    sweep_id: str
    trial: dict[str, Any]
    """`TrialConfig.to_dict()`."""
    checkpoint: str | None
    """The checkpoint to continue from; where it is None, lost or corrupt: the newest whole one in `folder`."""
    folder: str
    """Where the trial keeps its checkpoints."""
    data_root: str
    cpus: float


class Report(TypedDict):
    """What a step tells the driver: `result["report"]`."""

    step: int
    """Steps done: epochs, or stretches of `train.validate_every` iterations."""
    metrics: Mapping[str, float]
    """Of this step; NaN and infinities are kept."""
    checkpoint: str
    """The folder from which the trial continues after this step; the kept weights are in its `model/`."""
    best_step: int | None
    """The step whose weights are kept; None while there is none."""
    best_metrics: Mapping[str, float]
    """Of that step."""
    finished: str | None
    """Why the trial ends here, or None."""
    diverged: bool
    """It ends because a loss is not finite."""


@final
class TrialTrainable(tune.Trainable):  # type: ignore[misc]  # Ray's annotations are not read
    """A trial as a Tune actor: a step is one of the training and its checkpoint, so what is reported is on disk.

    A trial that continues first reports the step of its checkpoint again, without training, because the driver that
    asked for it may have died before it heard the answer. Reports are idempotent by (trial, step).
    """

    _dataset: Dataset | None = None
    _data_key: tuple[str, str] | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Prepares the trial that `config` (a `TrialSettings`) describes, from its checkpoint if it has one."""
        trial = TrialConfig.from_dict(config["trial"])
        torch.set_num_threads(max(1, int(config["cpus"])))
        keep_freed_memory()
        self._folder = Path(config["folder"])
        self._training = Training(trial, self._load(trial, config["data_root"]), device=_device())
        self._unreported = _continue(self._training, config["checkpoint"], self._folder)

    def step(self) -> dict[str, Any]:
        """One step: `{"report": Report, "done": bool}`."""
        training, path, self._unreported = self._training, self._unreported, None
        if path is None:
            training.advance()
            path = checkpoint.write(self._folder, training)
        report = Report(
            step=training.step,
            metrics=dict(training.metrics),
            checkpoint=str(path),
            best_step=training.best_step,
            best_metrics=dict(training.best_metrics),
            finished=training.finished,
            diverged=training.diverged,
        )
        return {"report": report, "done": training.finished is not None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the trial's checkpoint into a folder of Tune's."""
        checkpoint.write(Path(checkpoint_dir), self._training)

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Continues from a folder that `save_checkpoint` filled.

        Raises:
            CorruptCheckpoint: there is no whole checkpoint in it.
        """
        path = checkpoint.latest(Path(checkpoint_dir))
        if path is None:
            raise checkpoint.CorruptCheckpoint(f"need a whole checkpoint in {checkpoint_dir}, found none")
        self._training.restore(checkpoint.read(path))
        self._unreported = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turns this warm actor to another trial; data that are the same stay loaded."""
        del self._training  # before the next one takes memory
        _release_memory()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        """Lets go of the model and the data."""
        del self._training
        self._dataset = self._data_key = None
        _release_memory()

    def _load(self, trial: TrialConfig, root: str) -> Dataset:
        key = (trial.data.digest, root)
        if self._dataset is None or self._data_key != key:
            self._dataset, self._data_key = trial.data.load(Path(root)), key
        return self._dataset


def _continue(training: Training, named: str | None, folder: Path) -> Path | None:
    """Restores the training from the named checkpoint, else from the newest whole one; None: there is neither."""
    if named is not None:
        try:
            training.restore(checkpoint.read(Path(named)))
        except checkpoint.CorruptCheckpoint as error:
            logger.warning("looking for another checkpoint: %s", error)
        else:
            return Path(named)
    path = checkpoint.latest(folder)
    if path is not None:
        training.restore(checkpoint.read(path))
    return path


def _device() -> torch.device:
    """The GPU that Ray gave a share of to this actor, else the CPU."""
    inside_ray = ray.is_initialized()
    return torch.device("cuda" if inside_ray and ray.get_gpu_ids() else "cpu")


def _release_memory() -> None:
    release_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
