"""Every setting that may change while a trial runs: one that goes on from another's checkpoint trains with its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables import checkpoint
from trainables.checkpoint import CorruptCheckpoint
from trainables.saved_model import load_model
from trainables.train_config import CHANGEABLE
from trainables.training import Training
from trainables.trial import TrialConfig, nest

DATA = {"name": "digits", "image_size": 8, "train": 64, "validation": 32, "test": 32}
SHARED = {"blocks": [2, 2, 2], "width": 0.25, "levels": ["lower", "middle", "upper"], "sharing": "relaxed"}
CHANGES: dict[str, dict[str, Any]] = {
    "train.learning_rate": {},
    "train.momentum": {"train.optimizer": "sgd"},
    "train.weight_decay": {},
    "train.clip_norm": {"train.optimizer": "sgd"},
    "train.pull.start": {"train.pull.kind": "constant"},
    "train.pull.end": {"train.pull.kind": "linear"},
    "train.pull.warmup": {"train.pull.kind": "linear"},
    "train.pull.steps": {"train.pull.kind": "step"},
    "train.pull.angle": {"train.pull.kind": "adaptive"},
    "train.pull.rate": {"train.pull.kind": "adaptive"},
}
"""Beside which settings each one has a say."""
VALUES: dict[str, tuple[Any, Any]] = {
    "train.learning_rate": (1e-3, 2e-3),
    "train.momentum": (0.9, 0.5),
    "train.weight_decay": (0.0, 0.1),
    "train.clip_norm": (1e-3, 1e-2),
    "train.pull.start": (1e-2, 1e-1),
    "train.pull.end": (1e-1, 1.0),
    "train.pull.warmup": (0.0, 0.5),
    "train.pull.steps": (2, 3),
    "train.pull.angle": (0.5, 40.0),
    "train.pull.rate": (0.1, 1.0),
}


def make_trial(name: str, value: Any) -> TrialConfig:
    """A trial in which the setting has a say, with this value."""
    settings = {"train.batch_size": 16, "train.max_epochs": 3, **CHANGES[name], name: value}
    pulled = name.startswith("train.pull")
    model = {"family": "shared_resnet", "model": SHARED} if pulled else {"family": "narrow_resnet"}
    narrow = {} if pulled else {"model": {"channels": [2, 4, 4, 4]}}
    return TrialConfig.from_dict({**model, **narrow, **nest(settings), "data": DATA})


def make_training(trial: TrialConfig, root: Path) -> Training:
    """On the CPU."""
    return Training(trial, trial.data.load(root), device=torch.device("cpu"))


@pytest.fixture(name="root", scope="module")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def test_each_is_tested_here() -> None:
    """A new one needs its row above."""
    assert set(CHANGES) == set(VALUES) == set(CHANGEABLE)


@pytest.mark.parametrize("name", CHANGEABLE)
def test_a_changed_setting_counts_from_the_next_step_on(name: str, tmp_path: Path, root: Path) -> None:
    """The weights are the other's until then; the next step is not the other's, but what this trial's is from there."""
    before, after = (make_trial(name, value) for value in VALUES[name])
    other = make_training(before, root)
    other.advance()
    source = checkpoint.write(tmp_path / "other", other)
    path = checkpoint.adopt(source, tmp_path / "own", name="s-0001", trial=after, step=1)
    state = checkpoint.read(path)
    assert state.trial == after.to_dict()
    assert list(state.lineage) == [{"source": "s-0001", "step": 1, "trial": before.to_dict()}]
    assert all(torch.equal(value, state.weights[key]) for key, value in other.state().weights.items())
    own = make_training(after, root)
    own.restore(state)
    other.advance()
    own.advance()
    theirs = other.state().weights
    assert any(not torch.equal(value, theirs[key]) for key, value in own.state().weights.items())
    assert own.best_step == 2
    model = load_model(checkpoint.write(tmp_path / "own", own) / "model")
    assert (model.trial, model.step) == (after.to_dict(), 2)


def test_adopting_again_changes_nothing(tmp_path: Path, root: Path) -> None:
    """Also when the other has gone on; a checkpoint of another step or one that was altered cannot be adopted."""
    before, after = (make_trial("train.learning_rate", value) for value in (1e-3, 2e-3))
    other = make_training(before, root)
    other.advance()
    source = checkpoint.write(tmp_path / "other", other)
    with pytest.raises(CorruptCheckpoint, match="need a checkpoint of step 2"):
        checkpoint.adopt(source, tmp_path / "own", name="s-0001", trial=after, step=2)
    path = checkpoint.adopt(source, tmp_path / "own", name="s-0001", trial=after, step=1)
    written = path.stat().st_ino
    other.advance()
    checkpoint.write(tmp_path / "other", other)
    assert not source.exists()
    assert checkpoint.adopt(source, tmp_path / "own", name="s-0001", trial=after, step=1).stat().st_ino == written
    with pytest.raises(CorruptCheckpoint):
        checkpoint.adopt(source, tmp_path / "own", name="s-0002", trial=after, step=1)
    description = json.loads((path / "state.json").read_text())
    assert (description["best_step"], description["best_metrics"]) == (None, {})
    assert not (path / "model").exists()
