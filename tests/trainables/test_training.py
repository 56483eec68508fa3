"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch

from trainables.training import Training, TrainingState

TIMES = {"seconds", "images_per_second"}


def without_times(metrics: Mapping[str, float]) -> dict[str, float]:
    """What two runs of the same epoch must agree on."""
    return {name: value for name, value in metrics.items() if name not in TIMES}


def assert_same(state: TrainingState, other: TrainingState) -> None:
    """Bit for bit, times aside."""
    assert (state.step, state.best_step) == (other.step, other.best_step)
    assert without_times(state.metrics) == without_times(other.metrics)
    assert without_times(state.best_metrics) == without_times(other.best_metrics)
    for part in ("weights", "optimizer", "best_weights"):
        mine, theirs = getattr(state, part), getattr(other, part)
        assert list(mine) == list(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), part


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "weight_decay": 0.01},
        {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9},
        {"optimizer": "sgd", "momentum": 0.0, "monitor": "validation/loss"},
    ],
    ids=str,
)
def test_continuing_is_exact(options: dict, make_training: Callable[..., Training]) -> None:
    """Six epochs straight and three, a restored state, and three more give the same bits and the same metrics."""
    straight = make_training(**options)
    history = [straight.epoch() for _ in range(6)]
    first = make_training(**options)
    continued_history = [first.epoch() for _ in range(3)]
    torch.rand(7)  # what else the process draws must not matter
    second = make_training(**options)
    second.restore(first.state())
    continued_history += [second.epoch() for _ in range(3)]
    assert [without_times(m) for m in history] == [without_times(m) for m in continued_history]
    assert_same(straight.state(), second.state())


def test_a_state_is_a_copy(make_training: Callable[..., Training]) -> None:
    """Training on does not change a state that was taken before."""
    training = make_training()
    training.epoch()
    state, again = training.state(), training.state()
    training.epoch()
    assert_same(state, again)
    assert not torch.equal(state.weights["head.weight"], training.state().weights["head.weight"])


def test_a_restored_training_does_not_share_its_state(make_training: Callable[..., Training]) -> None:
    """A state can start two trainings, and neither changes the other."""
    training = make_training()
    training.epoch()
    state = training.state()
    one, two = make_training(), make_training()
    one.restore(state)
    one.epoch()
    two.restore(state)
    two.epoch()
    assert_same(one.state(), two.state())


def test_the_seed_decides_everything(make_training: Callable[..., Training]) -> None:
    """Equal seeds give equal trainings; another seed gives other weights and another order."""
    one, same, other = make_training(seed=1), make_training(seed=1), make_training(seed=2)
    assert not torch.equal(one.state().weights["head.weight"], other.state().weights["head.weight"])
    assert without_times(one.epoch()) == without_times(same.epoch()) != without_times(other.epoch())
    assert_same(one.state(), same.state())


def test_the_process_keeps_its_own_random_numbers(make_training: Callable[..., Training]) -> None:
    """Training leaves torch's global generator as it was."""
    before = torch.random.get_rng_state()
    make_training().epoch()
    assert torch.equal(before, torch.random.get_rng_state())


def test_it_learns(make_training: Callable[..., Training]) -> None:
    """The corners are told apart within six epochs, on images not trained on; the last epoch brings the test."""
    training = make_training()
    history = [training.epoch() for _ in range(6)]
    assert history[-1]["test/accuracy"] > 0.9  # chance is 1/3
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    assert training.finished == "max_epochs reached"
    assert all("test/accuracy" not in metrics for metrics in history[:-1])
    assert set(history[0]) == {
        "train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "learning_rate", *TIMES,
    }  # fmt: skip
    assert training.best_metrics["test/accuracy"] == history[-1]["test/accuracy"]


@pytest.mark.parametrize("monitor", ["validation/loss", "validation/accuracy"])
def test_the_best_weights_are_kept(monitor: str, make_training: Callable[..., Training]) -> None:
    """The kept weights are those of the first epoch with the best monitored value, and give that value again."""
    training = make_training(monitor=monitor, learning_rate=0.1, optimizer="sgd")
    history, weights = [], []
    for _ in range(6):
        history.append(training.epoch()[monitor])
        weights.append(training.state().weights)
    best = history.index(min(history) if monitor == "validation/loss" else max(history))
    assert training.best_step == best + 1
    assert training.best_metrics[monitor] == history[best]
    assert all(torch.equal(value, training.best_weights[name]) for name, value in weights[best].items())


def test_patience_ends_it(make_training: Callable[..., Training]) -> None:
    """Without a better epoch for `patience` epochs there is no more to train."""
    training = make_training(learning_rate=1e-30, optimizer="sgd", patience=2, max_epochs=50)
    while training.finished is None:
        training.epoch()
    assert training.finished == "no better validation/accuracy for 2 epochs"
    assert training.best_step is not None
    assert training.step == training.best_step + 2
    assert training.best_metrics["test/loss"] == training.metrics["test/loss"]


def test_divergence_ends_it_without_an_exception(make_training: Callable[..., Training]) -> None:
    """A loss that is not a number is kept as a value, ends the training and keeps no weights."""
    training = make_training(learning_rate=1e30, optimizer="sgd")
    metrics = training.epoch()
    assert math.isnan(metrics["train/loss"])
    assert training.diverged
    assert training.finished == "diverged: train/loss is nan at step 1"
    assert training.best_step is None
    assert training.best_weights == {}
    assert "test/loss" not in metrics


def test_fewer_images_than_a_batch_are_one_batch(make_training: Callable[..., Training]) -> None:
    """A batch size above the number of images trains on all of them at once."""
    training = make_training(batch_size=1000)
    training.epoch()
    assert training.state().optimizer["0.step"].item() == 1


def test_a_partial_batch_is_left_out(make_training: Callable[..., Training]) -> None:
    """150 images in batches of 32 are four steps."""
    training = make_training()
    training.epoch()
    assert training.state().optimizer["0.step"].item() == 4
