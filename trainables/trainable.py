"""The training loop as Ray Tune runs it: the only file here that imports Ray."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, final

from trainables.set_aside import set_aside

with set_aside():
    import ray
    import torch
    from ray import tune

    from trainables import checkpoint
    from trainables.allocator import keep_freed_memory, release_freed_memory
    from trainables.data.dataset import Dataset
    from trainables.folder import FULL
    from trainables.initial_weights import find_initial_weights
    from trainables.training import Training
    from trainables.trial import TrialConfig

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0
"""Between looks at whether there is room for a trial's last checkpoint."""


class TrialSettings(TypedDict):
    """The Tune config of a trial."""

    trial_id: str
    sweep_id: str
    trial: dict[str, Any]
    """`TrialConfig.to_dict()`."""
    checkpoint: str | None
    """The checkpoint to continue from; where it is None or of no use: the newest one in `folder` that is."""
    step: int
    """The last step that was reported before; 0 if none was."""
    folder: str
    """Where the trial keeps its checkpoints."""
    data_root: str
    data_reserve: int
    """Bytes that stay free on the disk of the data, where the trial makes its own."""
    weights_root: str
    """The folder in which weights are that `train.initial_weights` names by a path."""
    referenced_weights: str | None
    """Where the weights are that it refers to; None: it is no reference, or to nothing that is still there."""
    cpus: float
    gpus: float


class Report(TypedDict):
    """What a step tells the driver: `result["report"]`."""

    step: int
    """Steps done: epochs, or stretches of `train.validate_every` iterations."""
    metrics: Mapping[str, float]
    """Of this step; NaN and infinities are kept."""
    checkpoint: str | None
    """The folder from which the trial continues, after this step unless the disk was full; its kept weights are in
    `model/`. None: no checkpoint could be written yet."""
    best_step: int | None
    """The step whose weights are kept in `checkpoint`; None while there is none."""
    best_metrics: Mapping[str, float]
    """Of that step."""
    finished: str | None
    """Why the trial ends here, or None."""
    diverged: bool
    """It ends because a loss is not finite."""


@final
class TrialTrainable(tune.Trainable):  # type: ignore[misc]  # Ray's annotations are not read
    """A trial as a Tune actor: a step is one of the training and its checkpoint, so what is reported is on disk.

    A trial that continues first reports, a step each and without training, what its checkpoint has and the store has
    not: the last driver may have died before the store answered it. The checkpoint's own step is always reported, since
    the trial's end may follow from it. Reports are idempotent by (trial, step).
    """

    _dataset: Dataset | None = None
    _data_key: tuple[str, str] | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Prepares the trial that `config` (a `TrialSettings`) describes, from its checkpoint if it has one."""
        trial = TrialConfig.from_dict(config["trial"])
        torch.set_num_threads(max(1, int(config["cpus"])))
        keep_freed_memory()
        self._folder = Path(config["folder"])
        dataset = self._load(trial, config["data_root"], config["data_reserve"])
        self._training = Training(trial, dataset, device=_device(), initial_weights=_initial_weights(trial, config))
        self._path = _continue(self._training, config["checkpoint"], self._folder)
        self._remember_best()
        newest = self._training.step
        self._untold = deque(range(min(config["step"] + 1, newest), newest + 1) if self._path else ())

    def step(self) -> dict[str, Any]:
        """One step: `{"report": Report, "done": bool}`; the report is None while the trial's end waits for room."""
        training = self._training
        if not self._untold:
            if training.finished is None:
                training.advance()
            else:
                time.sleep(PAUSE_SECONDS)
            if not self._save() and training.finished is not None:
                return {"report": None, "done": False}
            self._untold.append(training.step)
        step = self._untold.popleft()
        newest = step == training.step
        report = Report(
            step=step,
            metrics=dict(training.history[step]),
            checkpoint=str(self._path) if self._path is not None else None,
            best_step=self._best_step,
            best_metrics=self._best_metrics,
            finished=training.finished if newest else None,
            diverged=newest and training.diverged,
        )
        return {"report": report, "done": report["finished"] is not None}

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
        self._remember_best()
        self._untold.clear()

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

    def _save(self) -> bool:
        """Writes the trial's checkpoint; False: the disk is full.

        Then the trial goes on with its last one, and would repeat what came since. Its end waits for room: there would
        be nothing to serve.
        """
        try:
            self._path = checkpoint.write(self._folder, self._training)
        except OSError as error:
            if error.errno not in FULL:
                raise
            logger.warning("no room for a checkpoint of step %d: %s", self._training.step, error)
            return False
        self._remember_best()
        return True

    def _remember_best(self) -> None:
        """What is reported of the kept weights is of those on disk."""
        self._best_step, self._best_metrics = self._training.best_step, dict(self._training.best_metrics)

    def _load(self, trial: TrialConfig, root: str, reserve: int) -> Dataset:
        key = (trial.data.digest, root)
        if self._dataset is None or self._data_key != key:
            self._dataset, self._data_key = trial.data.load(Path(root), reserve=reserve), key
        return self._dataset


def _continue(training: Training, named: str | None, folder: Path) -> Path | None:
    """Restores the training from the named checkpoint, else from the newest that is of use; None: there is none.

    Checkpoints that are not whole are passed over, and so are another trial's: the store may never have heard of a
    trial that has a folder, and then its id is given again, to another point.
    """
    for path in [*([Path(named)] if named is not None else []), *checkpoint.newest_first(folder)]:
        try:
            state = checkpoint.read(path)
        except checkpoint.CorruptCheckpoint as error:
            logger.warning("looking for another checkpoint: %s", error)
            continue
        if state.trial == training.config.to_dict():
            training.restore(state)
            return path
        logger.warning("looking for another checkpoint: %s is of a trial with other settings", path)
    return None


def _initial_weights(trial: TrialConfig, config: Mapping[str, Any]) -> Path | None:
    name, referenced = trial.train.initial_weights, config["referenced_weights"]
    if name is None or name.reference:
        return None if referenced is None else Path(referenced)
    return find_initial_weights(name, Path(config["weights_root"]))


def _device() -> torch.device:
    """The GPU that Ray gave a share of to this actor, else the CPU."""
    inside_ray = ray.is_initialized()
    return torch.device("cuda" if inside_ray and ray.get_gpu_ids() else "cpu")


def _release_memory() -> None:
    release_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
