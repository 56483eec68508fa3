"""The training loop."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trainables.config import ConfigError
from trainables.data.dataset import Dataset, Split
from trainables.reported import REPORTED, VOLATILE
from trainables.saved_model import save_model
from trainables.training import CHECK_EVERY, Training
from trainables.training_state import TrainingState
from trainables.trial import TrialConfig


def lasting(metrics: Mapping[str, float]) -> dict[str, float]:
    """What two runs of the same epoch must agree on."""
    return {name: value for name, value in metrics.items() if name not in VOLATILE}


def assert_same(state: TrainingState, other: TrainingState) -> None:
    """Bit for bit, times aside."""
    assert (state.step, state.best_step) == (other.step, other.best_step)
    assert lasting(state.metrics) == lasting(other.metrics)
    assert lasting(state.best_metrics) == lasting(other.best_metrics)
    for part in ("weights", "optimizer", "best_weights"):
        mine, theirs = getattr(state, part), getattr(other, part)
        assert list(mine) == list(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), part


EVERY_OPTION = [
    {"optimizer": "adam", "weight_decay": 0.01},
    {"optimizer": "adam", "precision": "float32"},
    {"optimizer": "adam", "precision": "bfloat16", "flips": "both"},
    {"optimizer": "adam", "precision": "tfloat32"},
    {"optimizer": "adamw", "weight_decay": 0.01, "schedule": {"kind": "cosine", "warm_up": 0.3}},
    {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "schedule": {"kind": "step"}},
    {"optimizer": "sgd", "momentum": 0.0, "monitor": "validation/loss"},
    {"optimizer": "sgd", "nesterov": True, "clip_norm": 0.1},
    {"optimizer": "sgd", "dampening": 0.5, "learning_rates": {"blocks.0": 0.1, "head": 0.001}},
    {"max_iterations": 17, "validate_every": 3, "flips": "horizontal", "schedule": {"kind": "cosine"}},
]


@pytest.mark.parametrize("options", EVERY_OPTION, ids=str)
def test_continuing_is_exact(options: dict, make_training: Callable[..., Training]) -> None:
    """Four steps straight and two, a restored state, and two more give the same bits and the same metrics."""
    straight = make_training(**options)
    history = [straight.advance() for _ in range(4)]
    first = make_training(**options)
    continued_history = [first.advance() for _ in range(2)]
    torch.rand(7)  # what else the process draws must not matter
    second = make_training(**options)
    second.restore(first.state())
    continued_history += [second.advance() for _ in range(2)]
    assert [lasting(m) for m in history] == [lasting(m) for m in continued_history]
    assert_same(straight.state(), second.state())


def test_continuing_is_exact_with_a_translated_network(
    make_training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.compile (traced, but not brought to C++ here: that takes a minute) changes no bit of what follows."""
    monkeypatch.setattr("trainables.compiled.BACKEND", "aot_eager")
    options = {"compile": "on", "precision": "float32"}
    straight, first, second = (make_training(**options) for _ in range(3))
    for training in (straight, straight, first):
        training.advance()
    second.restore(first.state())
    second.advance()
    assert_same(straight.state(), second.state())
    eager = make_training(precision="float32")
    eager.advance()
    assert eager.metrics["train/loss"] == pytest.approx(first.metrics["train/loss"], rel=1e-4)


def test_cuda_graphs_need_a_gpu(make_training: Callable[..., Training]) -> None:
    """Asking for them elsewhere is an error that says so."""
    with pytest.raises(ValueError, match=r"train\.compile: cuda_graphs needs a GPU, got the device cpu"):
        make_training(compile="cuda_graphs")


def test_every_metric_is_listed(make_training: Callable[..., Training]) -> None:
    """A trial on a CPU reports what REPORTED lists but a GPU's utilisation, and else its task's measures only."""
    training = make_training(max_epochs=1)
    metrics = training.advance()
    measured = {f"{split}/{name}" for split in ("train", "validation", "test") for name in ("loss", "accuracy")}
    assert set(metrics) == measured | set(REPORTED) - {"gpu/utilization"}
    assert REPORTED.keys() >= VOLATILE
    assert metrics["forward_seconds"] > 0


def test_a_state_is_a_copy(make_training: Callable[..., Training]) -> None:
    """Training on does not change a state that was taken before."""
    training = make_training()
    training.advance()
    state, again = training.state(), training.state()
    training.advance()
    assert_same(state, again)
    assert not torch.equal(state.weights["head.weight"], training.state().weights["head.weight"])


def test_a_restored_training_does_not_share_its_state(make_training: Callable[..., Training]) -> None:
    """A state can start two trainings, and neither changes the other."""
    training = make_training()
    training.advance()
    state = training.state()
    one, two = make_training(), make_training()
    one.restore(state)
    one.advance()
    two.restore(state)
    two.advance()
    assert_same(one.state(), two.state())


def test_the_seed_decides_everything(make_training: Callable[..., Training]) -> None:
    """Equal seeds give equal trainings; another seed gives other weights and another order."""
    one, same, other = make_training(seed=1), make_training(seed=1), make_training(seed=2)
    assert not torch.equal(one.state().weights["head.weight"], other.state().weights["head.weight"])
    assert lasting(one.advance()) == lasting(same.advance()) != lasting(other.advance())
    assert_same(one.state(), same.state())


def test_the_process_keeps_its_own_random_numbers(make_training: Callable[..., Training]) -> None:
    """Training leaves torch's global generator as it was."""
    before = torch.random.get_rng_state()
    make_training().advance()
    assert torch.equal(before, torch.random.get_rng_state())


def test_it_learns(make_training: Callable[..., Training]) -> None:
    """The corners are told apart within six epochs, on images not trained on; the last epoch brings the test."""
    training = make_training()
    history = [training.advance() for _ in range(6)]
    assert history[-1]["test/accuracy"] > 0.9  # chance is 1/3
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    assert training.finished == "max_epochs reached"
    assert all("test/accuracy" not in metrics for metrics in history[:-1])
    assert training.best_metrics["test/accuracy"] == history[-1]["test/accuracy"]


@pytest.mark.parametrize("monitor", ["validation/loss", "validation/accuracy"])
def test_the_best_weights_are_kept(monitor: str, make_training: Callable[..., Training]) -> None:
    """The kept weights are those of the first epoch with the best monitored value, and give that value again."""
    training = make_training(monitor=monitor, learning_rate=0.1, optimizer="sgd")
    history, weights = [], []
    for _ in range(6):
        history.append(training.advance()[monitor])
        weights.append(training.state().weights)
    best = history.index(min(history) if monitor == "validation/loss" else max(history))
    assert training.best_step == best + 1
    assert training.best_metrics[monitor] == history[best]
    assert all(torch.equal(value, training.best_weights[name]) for name, value in weights[best].items())


def test_the_last_weights_are_kept(make_training: Callable[..., Training]) -> None:
    """With `keep: last`, though no step is better than the first; continuing keeps on, and patience is refused."""
    settings = {"keep": "last", "learning_rate": 1e-30, "optimizer": "sgd", "max_epochs": 3}
    first, training = make_training(**settings), make_training(**settings)
    first.advance()
    training.restore(first.state())
    while training.finished is None:
        training.advance()
        assert training.best_step == training.step
    assert training.step == 3
    assert lasting(training.best_metrics) == lasting(training.metrics)
    assert all(torch.equal(value, training.best_weights[name]) for name, value in training.state().weights.items())
    with pytest.raises(ConfigError, match="patience: need none with keep last"):
        make_training(keep="last", patience=2)


def test_last_weights_that_diverged_are_not_kept(make_training: Callable[..., Training]) -> None:
    """Those of the step before are."""
    training = make_training(keep="last")
    training.advance()
    with torch.no_grad():
        next(training.model.parameters()).fill_(float("nan"))
    training.advance()
    assert training.diverged
    assert training.best_step == 1
    assert all(value.isfinite().all() for value in training.best_weights.values())


def test_patience_ends_it(make_training: Callable[..., Training]) -> None:
    """Without a better epoch for `patience` epochs there is no more to train."""
    training = make_training(learning_rate=1e-30, optimizer="sgd", patience=2, max_epochs=50)
    while training.finished is None:
        training.advance()
    assert training.finished == "no better validation/accuracy for 2 epochs"
    assert training.best_step is not None
    assert training.step == training.best_step + 2
    assert training.best_metrics["test/loss"] == training.metrics["test/loss"]


def test_divergence_ends_it_without_an_exception(make_training: Callable[..., Training]) -> None:
    """A loss that is not a number is kept as a value, ends the training and keeps no weights."""
    training = make_training(learning_rate=1e30, optimizer="sgd")
    metrics = training.advance()
    assert math.isnan(metrics["train/loss"])
    assert training.diverged
    assert training.finished == "diverged: train/loss is nan at step 1"
    assert training.best_step is None
    assert training.best_weights == {}
    assert "test/loss" not in metrics


def test_fewer_images_than_a_batch_are_one_batch(make_training: Callable[..., Training]) -> None:
    """A batch size above the number of images trains on all of them at once."""
    training = make_training(batch_size=1000)
    training.advance()
    assert training.state().optimizer["0.step"].item() == 1


def test_a_partial_batch_is_left_out(make_training: Callable[..., Training]) -> None:
    """150 images in batches of 32 are four steps."""
    training = make_training()
    training.advance()
    assert training.state().optimizer["0.step"].item() == 4


def test_a_step_can_be_a_number_of_iterations(make_training: Callable[..., Training]) -> None:
    """With `validate_every`, steps cross epochs' ends, and the last is what is left of `max_iterations`."""
    training = make_training(max_iterations=11, validate_every=3, max_epochs=1)
    iterations = []
    while training.finished is None:
        iterations.append(training.advance()["iteration"])
    assert iterations == [3, 6, 9, 11]
    assert training.finished == "max_iterations reached"
    assert training.state().optimizer["0.step"].item() == 11


def test_shorter_steps_train_the_same(make_training: Callable[..., Training]) -> None:
    """How often a trial is validated does not change what it learns (nothing here draws in its layers)."""
    whole, halves = make_training(max_epochs=2), make_training(max_epochs=2, validate_every=2)
    for training in (whole, halves):
        while training.finished is None:
            training.advance()
    assert halves.step == 2 * whole.step
    one, other = whole.state().weights, halves.state().weights
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_schedule_sets_the_rate(make_training: Callable[..., Training]) -> None:
    """The reported learning rate is that of the step's last iteration."""
    training = make_training(learning_rate=0.04, max_epochs=4, schedule={"kind": "step", "milestones": [0.5]})
    assert [training.advance()["learning_rate"] for _ in range(4)] == pytest.approx([0.04, 0.04, 0.004, 0.004])


def test_clipping_bounds_the_gradient(make_training: Callable[..., Training]) -> None:
    """One plain SGD step moves all weights together by at most learning rate x norm."""
    training = make_training(optimizer="sgd", momentum=0.0, learning_rate=0.5, clip_norm=0.01, max_iterations=1)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    training.advance()
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(training.model.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_divergence_is_noticed_within_an_epoch(make_training: Callable[..., Training]) -> None:
    """A long epoch is not trained to its end once the loss is not a number."""
    training = make_training(optimizer="sgd", learning_rate=1e30, batch_size=2)
    assert training.budget.per_epoch == 75
    assert training.advance()["iteration"] == CHECK_EVERY


def test_small_images_are_not_trained_in_bfloat16(corners: Dataset, make_trial: Callable[..., TrialConfig]) -> None:
    """Where bfloat16 gradients would be wrong, `auto` is float32 and asking for bfloat16 is an error."""
    preprocessing = dataclasses.replace(corners.preprocessing, height=16, width=16)
    images = np.ascontiguousarray(corners.train.images[:, :, :16, :16])
    small = dataclasses.replace(
        corners,
        preprocessing=preprocessing,
        **{split: Split(images, corners.train.targets) for split in ("train", "validation", "test")},
    )
    cpu = torch.device("cpu")
    one, other = (Training(make_trial(precision=name), small, device=cpu) for name in ("auto", "float32"))
    assert lasting(one.advance()) == lasting(other.advance())
    with pytest.raises(ValueError, match=r"train\.precision"):
        Training(make_trial(precision="bfloat16"), small, device=cpu)


def test_it_starts_from_other_weights(make_training: Callable[..., Training], tmp_path: Path) -> None:
    """`initial_weights` are those of the first step, a folder or a file; continuing does not read them again."""
    teacher = make_training()
    teacher.advance()
    assert teacher.best_step == 1
    weights = teacher.state().best_weights
    save_model(tmp_path / "model", trial=teacher.config, dataset=teacher.dataset, weights=weights, step=1, metrics={})
    trained = []
    for path in ("model", "model/model.safetensors"):
        training = make_training(optimizer="sgd", learning_rate=1e-30, initial_weights=path)
        training.advance()
        trained.append(training)
        assert torch.equal(training.state().weights["head.weight"], weights["head.weight"])
    shutil.rmtree(tmp_path / "model")
    again = make_training(optimizer="sgd", learning_rate=1e-30, initial_weights="model")
    again.restore(trained[0].state())
    trained[1].advance()
    again.advance()
    assert_same(again.state(), trained[1].state())


def test_initial_weights_that_do_not_fit_are_named(make_training: Callable[..., Training], tmp_path: Path) -> None:
    """The error names the tensors, their shapes and the ones needed; a lost file is an error too."""
    training = make_training(initial_weights="other.safetensors")
    with pytest.raises(ValueError, match=r"train.initial_weights.*need a saved model"):
        training.advance()
    weights = training.state().weights
    weights = {**weights, "head.weight": torch.zeros(3, 5), "extra": torch.zeros(2)}
    del weights["head.bias"]
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not fit") as caught:
        training.advance()
    for part in ("extra is [2], need it absent", "head.bias is absent, need [3]", "head.weight is [3, 5], need [3, 4]"):
        assert part in str(caught.value)
