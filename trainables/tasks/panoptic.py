"""What every pixel of an image shows, and which of several things."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.config import setting
from trainables.tasks.run_lengths import run_lengths
from trainables.tasks.task import Better, Task

DIVISOR = 1000
"""More than the things of an image. A pixel's target is (category + 1) * 1000 + instance; 0: nobody has labelled it."""
MATCH = 0.5
"""Of two segments' intersection over union: above it each matches one other at most."""

Numbers = TypeVar("Numbers", Tensor, npt.NDArray[np.int32])


def instances(targets: Numbers) -> tuple[Numbers, Numbers]:
    """The category (-1: none) and the instance in each target."""
    return targets // DIVISOR - 1, targets % DIVISOR


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Panoptic(Task):
    """Each pixel's category, of things or of stuff, and which thing it is a part of. Targets are int32 `[n, h, w]`.

    A target is (category + 1) * 1000 + instance, and 0 where nobody has labelled a pixel. Categories count from 0, with
    things first. Things are instances 1, 2, ...; stuff is 0, and so are things that nobody has told apart (a crowd). A
    model gives category (-1: none) and instance, `[n, 2, h, w]`.

    Scores are those of Kirillov et al., "Panoptic segmentation" (2019), section 4, over a whole split.
    """

    METRICS: ClassVar[Mapping[str, Better]] = {
        "pq": "max",
        "pq_things": "max",
        "pq_stuff": "max",
        "sq": "max",
        "rq": "max",
        "loss": "min",
    }
    TARGET: ClassVar[str] = "<i4"

    kind: Literal["panoptic"] = setting("panoptic", help="tells the tasks apart in files")
    things: tuple[str, ...] = setting(help="the names of categories whose instances are told apart")
    stuff: tuple[str, ...] = setting(help="the names of the other categories")

    def rules(self) -> Iterator[tuple[str, str]]:
        """There is something of both kinds."""
        for name in ("things", "stuff"):
            if not getattr(self, name):
                yield name, "need one category or more, got none"

    @property
    def categories(self) -> tuple[str, ...]:
        """All names, in the order of their numbers."""
        return (*self.things, *self.stuff)

    def target_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """One number a pixel."""
        return input_shape[1:]

    @property
    def outputs(self) -> int:
        """A category and an instance a pixel."""
        return 2

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean of `measure`'s. It has no gradient: a family that answers this task has a loss of its own."""
        return self.measure(outputs, targets)["loss"].mean()

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Of each category `[n, k]`: matched, false and missed segments, and the matched ones' summed IoU.

        `loss` is 1 minus the image's own panoptic quality; 0 where there is nothing to be found.
        """
        counts = torch.stack(
            [self._counts(own, target) for own, target in zip(self._encoded(outputs), targets, strict=True)]
        )
        found = dict(zip(("overlap", "matched", "false", "missed"), counts.unbind(dim=1), strict=True))
        quality, there = _qualities(found)
        return {**found, "loss": (1 - _means(quality, there)) * there.any(dim=1)}

    def summarize(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Panoptic quality, and of segmentation (`sq`) and recognition (`rq`): means over categories that occur."""
        sums = {name: value.double().sum(dim=0, keepdim=True) for name, value in values.items() if name != "loss"}
        quality, there = _qualities(sums)
        segmented = sums["overlap"] / sums["matched"].clamp(min=1)
        recognised = quality / segmented.where(segmented > 0, torch.ones_like(segmented))
        things = torch.arange(there.shape[1], device=there.device) < len(self.things)
        means = {
            "pq": _means(quality, there),
            "pq_things": _means(quality, there & things),
            "pq_stuff": _means(quality, there & ~things),
            "sq": _means(segmented, there),
            "rq": _means(recognised, there),
        }
        return {name: float(value) for name, value in means.items()} | {"loss": float(values["loss"].double().mean())}

    def decode(self, outputs: Tensor) -> dict[str, Tensor]:
        """`category` (-1: none) and `instance` (0: stuff) of each pixel, int32 `[n, h, w]`."""
        category, instance = outputs.round().int().unbind(dim=1)
        return {"category": category, "instance": instance}

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """One answer an image: its segments, each with class, instance, pixels, box and mask (see `run_lengths`).

        `instance` is there for things only. A box is left, top, right, bottom in pixels, the latter two just outside.
        """
        return [{"segments": self._segments(one)} for one in self._encoded(outputs).cpu()]

    def mirror(self, targets: Tensor, chosen: Tensor, axis: int) -> Tensor:
        """Maps are mirrored as their images are."""
        return torch.where(chosen.view(-1, 1, 1), targets.flip(axis), targets)

    def marked(self, target: Any) -> Any:
        """All things that are told apart."""
        return instances(target)[1] > 0

    def _encoded(self, outputs: Tensor) -> Tensor:
        """Outputs as targets are, `[n, h, w]`."""
        category, instance = outputs.round().long().unbind(dim=1)
        return (category + 1) * DIVISOR + instance

    def _segments(self, encoded: Tensor) -> list[dict[str, Any]]:
        found = []
        for one in torch.unique(encoded[encoded >= DIVISOR]):
            mask = encoded == one
            category, instance = (int(number) for number in instances(one))
            rows, columns = (torch.nonzero(mask.any(dim=axis))[:, 0] for axis in (1, 0))
            name = {"class": self.categories[category]}
            found.append(
                {
                    **(name | {"instance": instance} if category < len(self.things) else name),
                    "area": int(mask.sum()),
                    "box": [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1],
                    "mask": run_lengths(mask),
                }
            )
        return found

    def _counts(self, found: Tensor, true: Tensor) -> Tensor:
        """Of two encoded maps `[h, w]`, by category, `[4, k]`: summed overlaps, matched, false and missed segments."""
        kinds = len(self.categories)
        base = DIVISOR * (kinds + 1)
        pairs, areas = torch.unique(true.long() * base + found, return_counts=True)
        their, own = _Segments(pairs // base, areas), _Segments(pairs % base, areas)
        kind, number = instances(their.of_pairs)
        crowd = (kind >= 0) & (kind < len(self.things)) & (number == 0)
        same = kind == instances(own.of_pairs)[0]
        # What nobody has labelled, or told apart, is held against no segment.
        unlabelled = areas * (kind < 0)
        overlap = areas / (their.area[their.place] + own.area[own.place] - areas - own.sum(unlabelled)[own.place])
        matches = same & (kind >= 0) & ~crowd & (overlap > MATCH)
        excused = own.sum(areas * ((kind < 0) | (crowd & same))) > MATCH * own.area
        is_crowd = their.sum(crowd.long()) > 0
        false = (own.ids >= DIVISOR) & (own.sum(matches.long()) == 0) & ~excused
        missed = (their.ids >= DIVISOR) & (their.sum(matches.long()) == 0) & ~is_crowd

        def by_kind(ids: Tensor, weights: Tensor) -> Tensor:
            numbers = torch.zeros(kinds, dtype=torch.float64, device=ids.device)
            return numbers.index_add(0, instances(ids)[0].clamp(min=0), weights.double())

        overlap = overlap.where(matches, torch.zeros_like(overlap))
        rows = [(their.of_pairs, overlap), (their.of_pairs, matches), (own.ids, false), (their.ids, missed)]
        return torch.stack([by_kind(ids, weights) for ids, weights in rows]).float()


@final
class _Segments:
    """The segments of one of two maps, of which pairs of segments are known that share pixels."""

    def __init__(self, of_pairs: Tensor, areas: Tensor) -> None:
        self.of_pairs = of_pairs
        self.ids, self.place = torch.unique(of_pairs, return_inverse=True)
        self.area = self.sum(areas)

    def sum(self, numbers: Tensor) -> Tensor:
        """Of each segment's pairs."""
        return torch.zeros(len(self.ids), dtype=numbers.dtype, device=numbers.device).index_add(0, self.place, numbers)


def _qualities(counts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Panoptic quality of each category, and whether it occurs, `[n, k]`."""
    segments = counts["matched"] + (counts["false"] + counts["missed"]) / 2
    there = segments > 0
    return counts["overlap"] / segments.where(there, torch.ones_like(segments)), there


def _means(values: Tensor, chosen: Tensor) -> Tensor:
    """Over those chosen of each row of `[n, k]`; 0 where there are none."""
    return (values * chosen).sum(dim=1) / chosen.sum(dim=1).clamp(min=1)
