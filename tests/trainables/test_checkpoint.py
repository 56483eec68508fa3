"""Checkpoints on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainables import checkpoint
from trainables.checkpoint import CorruptCheckpoint
from trainables.reported import VOLATILE
from trainables.saved_model import load_model
from trainables.training import Training


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_continuing_from_disk_is_exact(optimizer: str, make_training: Callable[..., Training], tmp_path: Path) -> None:
    """Six epochs straight, and three, a checkpoint and three more: the same weights, moments and metrics."""
    straight, first, second = (make_training(optimizer=optimizer) for _ in range(3))
    for _ in range(6):
        straight.advance()
    for _ in range(3):
        first.advance()
    second.restore(checkpoint.read(checkpoint.write(tmp_path, first)))
    for _ in range(3):
        second.advance()
    one, other = straight.state(), second.state()
    for part in ("weights", "optimizer", "best_weights"):
        mine, theirs = getattr(one, part), getattr(other, part)
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), part
    assert (one.step, one.best_step) == (other.step, other.best_step)
    for name in set(one.metrics) - VOLATILE:
        assert one.metrics[name] == other.metrics[name], name
    assert list(other.history) == [1, 2, 3, 4, 5, 6]
    assert other.trial == second.config.to_dict()


def test_the_newest_replaces_the_others(make_training: Callable[..., Training], tmp_path: Path) -> None:
    """One checkpoint a trial stays, and nothing of what a dead writer left."""
    training = make_training()
    (tmp_path / ".checkpoint-000001.999").mkdir()
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    training.advance()
    checkpoint.write(tmp_path, training)
    training.advance()
    path = checkpoint.write(tmp_path, training)
    assert path == tmp_path / "checkpoint-000002"
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "notes.txt"]
    assert checkpoint.latest(tmp_path) == path


def test_writing_the_same_step_again_replaces_it(make_training: Callable[..., Training], tmp_path: Path) -> None:
    """A step that is trained again after a crash takes the place of a broken folder."""
    training = make_training()
    training.advance()
    path = tmp_path / "checkpoint-000001"
    path.mkdir()
    (path / "junk").touch()
    assert checkpoint.write(tmp_path, training) == path
    assert checkpoint.read(path).step == 1
    assert not (path / "junk").exists()


def test_the_best_weights_are_a_saved_model(make_training: Callable[..., Training], tmp_path: Path) -> None:
    """What is in `model/` can be served while the trial goes on."""
    training = make_training()
    training.advance()
    model = load_model(checkpoint.write(tmp_path, training) / checkpoint.MODEL)
    assert model.step == 1
    assert all(torch.equal(value, training.best_weights[name]) for name, value in model.module.state_dict().items())


def test_not_a_number_survives(make_training: Callable[..., Training], tmp_path: Path) -> None:
    """A diverged training is read back as one, without a model to serve."""
    training = make_training(optimizer="sgd", learning_rate=1e30)
    training.advance()
    path = checkpoint.write(tmp_path, training)
    assert not (path / checkpoint.MODEL).exists()
    state = checkpoint.read(path)
    assert math.isnan(state.metrics["train/loss"])
    again = make_training(optimizer="sgd", learning_rate=1e30)
    again.restore(state)
    assert again.finished == training.finished
    assert again.best_step is None


def test_a_setting_that_came_later_has_its_default(make_training: Callable[..., Training], tmp_path: Path) -> None:
    """An upgrade makes no other trial of one that is half done."""
    training = make_training()
    training.advance()
    path = checkpoint.write(tmp_path, training)
    values, index = (json.loads((path / name).read_text()) for name in ("state.json", "checkpoint.json"))
    del values["trial"]["train"]["keep"]
    content = json.dumps(values).encode()
    index["sha256"]["state.json"] = hashlib.sha256(content).hexdigest()
    (path / "state.json").write_bytes(content)
    (path / "checkpoint.json").write_text(json.dumps(index))
    assert checkpoint.read(path).trial == training.config.to_dict()


FILES = ["checkpoint.json", "state.json", "state.safetensors", "model/model.json", "model/model.safetensors"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["lost", "cut", "altered"])
def test_damage_is_found(name: str, damage: str, make_training: Callable[..., Training], tmp_path: Path) -> None:
    """A lost, cut or altered file makes the checkpoint corrupt, and it is passed over in the search for the newest."""
    training = make_training()
    training.advance()
    path = checkpoint.write(tmp_path, training)
    assert {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} == set(FILES)
    file = path / name
    content = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(CorruptCheckpoint, match="checkpoint-000001"):
        checkpoint.read(path)
    assert checkpoint.latest(tmp_path) is None


def test_an_older_whole_one_is_found_behind_a_broken_newer_one(
    make_training: Callable[..., Training], tmp_path: Path
) -> None:
    """The newest whole checkpoint is the latest, by number and not by spelling."""
    training = make_training()
    training.advance()
    path = checkpoint.write(tmp_path, training)
    (tmp_path / "checkpoint-1000000").mkdir()
    assert checkpoint.latest(tmp_path) == path


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    """An empty folder and one that is not there hold no checkpoint."""
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "missing") is None
