"""The pruners against Optuna's, and by hand where Optuna has none."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, PatientPruner, SuccessiveHalvingPruner

from service.pruning import Asha, Hyperband, Median, Nothing, Patient, Pruner

STEPS = 27


def _patient() -> BasePruner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PatientPruner(MedianPruner(n_startup_trials=5, n_warmup_steps=1), patience=2)


PAIRS: dict[str, tuple[Callable[[], Pruner], Callable[[], BasePruner]]] = {
    "asha": (
        lambda: Asha(first=2, reduction=3),
        lambda: SuccessiveHalvingPruner(min_resource=2, reduction_factor=3),
    ),
    "hyperband": (
        lambda: Hyperband(first=1, last=STEPS, reduction=3, seed=5),
        lambda: HyperbandPruner(min_resource=1, max_resource=STEPS, reduction_factor=3),
    ),
    "median": (lambda: Median(first=3), lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=3)),
    "patient": (lambda: Patient(patience=2), _patient),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("seed", range(3))
def test_a_pruner_judges_as_optuna_does(name: str, seed: int) -> None:
    """Forty noisy trials, four at a time: each ends at the very step at which Optuna would end it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make, theirs = PAIRS[name]
    rng, pruner = random.Random(seed), make()
    study = optuna.create_study(direction="maximize", study_name="5", pruner=theirs())
    running: dict[int, tuple[optuna.Trial, float, int]] = {}
    begun = ends = 0
    while begun < 40 or running:
        while begun < 40 and len(running) < 4:
            running[begun] = (study.ask(), rng.random(), 0)
            begun += 1
        number = rng.choice(sorted(running))
        trial, level, step = running.pop(number)
        value, step = level + rng.gauss(0, 0.2), step + 1
        trial.report(value, step)
        verdict = pruner.report(number, step, value)
        assert verdict == trial.should_prune(), (number, step)
        if verdict:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            ends += 1
        elif step == STEPS:
            study.tell(trial, value)
            pruner.complete(number)
        else:
            running[number] = trial, level, step
    assert 0 < ends < 40


def test_each_bracket_of_hyperband_has_its_share() -> None:
    """Of many trials, in proportion to the paper's n; the first bracket looks first and has the most."""
    pruner = Hyperband(first=1, last=27, reduction=3, seed=0)
    counts = [0] * 4
    for number in range(6000):
        counts[pruner.bracket(number)] += 1
    shares = [27, 12, 6, 4]  # ceil(4 * 3^s / (s + 1)), Hyperband's algorithm 1
    for count, share in zip(counts, shares, strict=True):
        assert count == pytest.approx(6000 * share / sum(shares), rel=0.15)


def test_without_a_pruner_nothing_ends() -> None:
    """However bad it is."""
    assert not Nothing().report(0, 1, -1e9)
