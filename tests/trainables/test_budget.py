"""How long a training is."""

from __future__ import annotations

from trainables.budget import Budget
from trainables.train_config import TrainConfig


def test_epochs_are_the_default() -> None:
    """A step is an epoch, of whole batches only."""
    budget = Budget.of(TrainConfig(batch_size=32, max_epochs=6), images=150)
    assert (budget.batch, budget.per_epoch, budget.per_step, budget.iterations, budget.steps) == (32, 4, 4, 24, 6)
    assert budget.iterations_of(1) == range(4)
    assert budget.iterations_of(6) == range(20, 24)


def test_iterations_replace_epochs() -> None:
    """With `max_iterations` the number of epochs does not matter, and the last step may be short."""
    budget = Budget.of(TrainConfig(batch_size=50, max_epochs=1, max_iterations=250, validate_every=100), images=150)
    assert (budget.iterations, budget.steps) == (250, 3)
    assert [len(budget.iterations_of(step)) for step in (1, 2, 3)] == [100, 100, 50]


def test_few_images_are_one_batch() -> None:
    """A batch size above the number of images takes them all."""
    budget = Budget.of(TrainConfig(batch_size=1000, max_epochs=2), images=150)
    assert (budget.batch, budget.per_epoch, budget.iterations) == (150, 1, 2)
