"""What becomes of trials that have ended: the best is the champion, and checkpoints that nothing needs are removed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import final

from service.domain import Sweep, Trial, TrialState
from service.driver.recorder import Write
from service.keeping import expendable, remove_checkpoint, tidy
from service.ports import Clock, Store
from service.sweeps import best_trials, offer_champion

logger = logging.getLogger(__name__)


@final
class Kept:
    """Sees to the models and checkpoints of one sweep, through the recorder.

    Args:
        sweep: the sweep.
        finished: its trials that have ended before.
        folder: where the trials keep their checkpoints, a folder each.
        put: takes what is to be done with the store.
        clock: gives champions their times.
    """

    def __init__(
        self, sweep: Sweep, finished: Sequence[Trial], folder: Path, *, put: Callable[[Write], None], clock: Clock
    ) -> None:
        self._sweep, self._folder, self._put, self._clock = sweep, folder, put, clock
        if finished:  # the last driver may have died between completing a trial and offering it
            put(self._offer_best)
            self.tidy()
        gone = {trial.id for trial in expendable(finished, sweep.spec)}
        self._contenders = [trial for trial in finished if trial.id not in gone]

    def end(self, trial: Trial) -> None:
        """Takes a trial that has ended."""
        if trial.state is TrialState.COMPLETED:
            self._put(lambda store: self._offer(store, trial))
        self._contenders.append(trial)
        for gone in expendable(self._contenders, self._sweep.spec):
            self._contenders.remove(gone)
            if gone.weights == "kept":
                self._put(partial(remove_checkpoint, trial_id=gone.id, folder=self._folder))

    def tidy(self) -> None:
        """Removes what was left."""
        self._put(partial(tidy, sweep_id=self._sweep.id, folder=self._folder))

    def _offer_best(self, store: Store) -> None:
        for trial in best_trials(store, self._sweep.id, limit=1):
            self._offer(store, trial)

    def _offer(self, store: Store, trial: Trial) -> None:
        version = offer_champion(store, trial.id, at=self._clock.now())
        if version is not None:
            logger.info("trial %d is the champion: version %d of %s", trial.number, version.version, version.name)
