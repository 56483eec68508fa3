"""The trials of a sweep with population-based training, brought together every so many steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

from service.domain import Exploit, Measurement, Trial
from service.errors import Unavailable
from service.population import Member, copies
from service.spec import SweepSpec
from trainables import checkpoint
from trainables.config import ConfigError
from trainables.folder import FULL

logger = logging.getLogger(__name__)


@final
class Generations:
    """Holds each trial at a look until all of them are there, and has some go on from others' weights.

    Looks are after `search.pbt.interval` steps, after twice as many, and so on, the last step of all left out. Each
    happens once: a trial that comes late, because it failed and is tried again, passes. Without population-based
    training there are none.

    Args:
        spec: of the sweep.
        trials: what the sweep has done so far.
        measurements: theirs.
        folder: where the trials keep their checkpoints, a folder each.
    """

    def __init__(
        self, spec: SweepSpec, trials: Sequence[Trial], measurements: Sequence[Measurement], folder: Path
    ) -> None:
        self._spec, self._training, self._folder = spec, spec.search.pbt, folder
        self._sign = 1.0 if spec.objective.mode == "max" else -1.0
        self._held: dict[str, tuple[Trial, float]] = {}
        self._done = 0
        """The step of the newest look that has happened."""
        if self._training is None:
            return
        self._last = spec.trial(spec.space.corners()[0]).steps
        for trial in trials:
            before = (trial.step - 1) // self._training.interval * self._training.interval
            self._done = max(self._done, before, *(exploit.step for exploit in trial.exploits), 0)
        metric = spec.objective.metric
        values = {(one.trial_id, one.step): one.metrics.get(metric, math.nan) for one in measurements}
        for trial in trials:
            if not trial.state.final and self.holds(trial):
                self.hold(trial, values.get((trial.id, trial.step), math.nan))

    @property
    def held(self) -> list[Trial]:
        """The trials that wait for the others, by number."""
        return sorted((trial for trial, _ in self._held.values()), key=lambda trial: trial.number)

    def holds(self, trial: Trial) -> bool:
        """The trial must wait for the others before its next step."""
        if self._training is None or trial.step % self._training.interval:
            return False
        return self._done < trial.step < self._last

    def hold(self, trial: Trial, value: float) -> None:
        """The trial waits. `value` is its objective after its newest step."""
        self._held[trial.id] = trial, value

    def exploits(self) -> list[Exploit]:
        """What the look at the held trials, which must be all that have not ended, comes to.

        The checkpoints to go on from are on disk then. Again, it comes to the same: nobody goes on before `release`.
        A trial whose checkpoint cannot be had is not copied, nor is one to settings that are no legal trial.

        Raises:
            Unavailable: the disk is full.
        """
        there = list(self._held.values())
        if self._training is None or not there:
            return []
        held = {trial.number: trial for trial, _ in there}
        members = [Member(trial.number, self._sign * value, trial.point) for trial, value in there]
        step = max(held[number].step for number in held)
        made = []
        for copy in copies(
            members, training=self._training, space=self._spec.space, seed=self._spec.search.seed, step=step
        ):
            trial, source = held[copy.number], held[copy.source]
            try:
                path = checkpoint.adopt(
                    Path(source.checkpoint or "none"),
                    self._folder / trial.id,
                    name=source.id,
                    trial=self._spec.trial(copy.point),
                    step=step,
                )
            except (OSError, checkpoint.CorruptCheckpoint, ConfigError) as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise Unavailable(f"no room for the checkpoint of trial {trial.number}: {error}") from error
                logger.warning("trial %d does not go on from trial %d: %s", trial.number, source.number, error)
                continue
            made.append(
                Exploit(
                    trial_id=trial.id,
                    step=step,
                    source=source.id,
                    before=dict(trial.point),
                    point=copy.point,
                    checkpoint=str(path),
                )
            )
        return made

    def release(self, exploits: Sequence[Exploit] = ()) -> list[Trial]:
        """The look has happened: the trials that were held, by number, as they go on."""
        held, by_trial = self.held, {exploit.trial_id: exploit for exploit in exploits}
        self._held.clear()
        self._done = max([self._done, *(trial.step for trial in held)])
        return [trial.exploited(by_trial[trial.id]) if trial.id in by_trial else trial for trial in held]
