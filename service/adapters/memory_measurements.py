"""What trials report, in memory. See `memory_store`, which calls under its lock."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from service.adapters.through_json import through_json
from service.domain import Measurement, Trial


class MemoryMeasurements:
    """The measurements of all trials, one a step of each."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], Measurement] = {}

    def add(self, measurement: Measurement) -> bool:
        """Keeps one more; False: there is one of this trial and step, which stays."""
        place = measurement.trial_id, measurement.step
        new = place not in self._kept
        self._kept.setdefault(place, through_json(measurement))
        return new

    def of(self, trials: Sequence[Trial], *, after: tuple[int, int]) -> list[Measurement]:
        """Those of these trials of a sweep, by number and step, after such a place."""
        numbers = {trial.id: trial.number for trial in trials}
        found = [through_json(one) for one in self._kept.values() if one.trial_id in numbers]
        found = [one for one in found if (numbers[one.trial_id], one.step) > after]
        return sorted(found, key=lambda one: (numbers[one.trial_id], one.step))

    def curves(self, trials: Sequence[Trial], *, points: int | None) -> list[Measurement]:
        """Those of these trials of a sweep, thinned to so many each, the last among them."""
        last = {trial.id: trial.step for trial in trials}
        stride = {name: math.ceil(step / points) if points is not None else 1 for name, step in last.items()}
        found = self.of(trials, after=(-1, 0))
        return [one for one in found if (last[one.trial_id] - one.step) % stride[one.trial_id] == 0]

    def forget(self, trial_ids: Collection[str]) -> None:
        """Removes those of these trials."""
        self._kept = {place: one for place, one in self._kept.items() if one.trial_id not in trial_ids}
