"""Panoptic FPN whole: a backbone, a pyramid, and heads for things, their masks and stuff.

Kirillov, Girshick, He and Dollár, "Panoptic feature pyramid networks" (2019), in the form of Detectron2. Axes:
n images, c channels, h rows, w columns; k regions of all images of a batch; g true things of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.fixed_point import FixedPoint, Statistics, iterate
from trainables.models.panoptic_fpn.backbone import ResNet
from trainables.models.panoptic_fpn.box_head import SIDE, BoxHead, Detections, box_losses, detect, with_objects
from trainables.models.panoptic_fpn.boxes import overlaps
from trainables.models.panoptic_fpn.mask_head import SIDE as MASK_SIDE
from trainables.models.panoptic_fpn.mask_head import MaskHead, Settle, mask_loss
from trainables.models.panoptic_fpn.matching import match, sample
from trainables.models.panoptic_fpn.merging import merged
from trainables.models.panoptic_fpn.proposals import ProposalNetwork, proposal_losses, propose
from trainables.models.panoptic_fpn.pyramid import STRIDES, Pyramid
from trainables.models.panoptic_fpn.roi_align import pooled, roi_align
from trainables.models.panoptic_fpn.semantic_head import IGNORED, SemanticHead, enlarged
from trainables.models.panoptic_fpn.truth import Truth, truth

PIXELS_AT_ONCE = 2**20
"""Of the images that are answered together; it bounds the memory."""
IS_THING = 0.5
"""A proposal that overlaps a true box by as much learns its class."""
THINGS = 0.25
"""The share of such proposals among those that are learnt from, at most."""


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """How many boxes are looked at, and which become part of the map."""

    proposals: int
    regions: int
    """Of each training image."""
    detections: int
    confidence: float
    least_stuff: float


@final
@dataclass(frozen=True, slots=True)
class Learned:
    """What a batch gave each head."""

    losses: dict[str, Tensor]
    found: FixedPoint | None
    """Where the recurrent mask head arrived; None: there is none, or there was nothing to cover."""


@final
class PanopticFPN(nn.Module):
    """Category and instance of every pixel.

    Args:
        backbone: of maps at strides 4, 8, 16 and 32.
        things: categories of things, which come first.
        stuff: categories of stuff.
        channels: of the pyramid and the mask head; the semantic head has half.
        hidden: units of the box head's two layers.
        anchor: an anchor's side, in strides.
        recurrent: the mask head is a recurrent cell in the place of four convolutions.
        steps: of that cell, if a call does not say.
        limits: see there.
    """

    def __init__(
        self,
        backbone: ResNet,
        *,
        things: int,
        stuff: int,
        channels: int,
        hidden: int,
        anchor: float,
        recurrent: bool,
        steps: int,
        limits: Limits,
    ) -> None:
        super().__init__()
        self.things, self.steps, self.limits = things, steps, limits
        self.backbone = backbone
        self.pyramid = Pyramid(backbone.channels, channels)
        self.proposals = ProposalNetwork(channels, anchor)
        self.boxes = BoxHead(channels, hidden, things)
        self.masks = MaskHead(channels, things, recurrent=recurrent)
        self.semantic = SemanticHead(channels, max(1, channels // 2), stuff, len(STRIDES) - 1)
        self.solves: list[Statistics] = []
        """Of backward solves since training last told of them."""

    @torch.no_grad()
    def forward(self, images: Tensor, steps: int | None = None) -> Tensor:
        """Category (-1: none) and instance (0: stuff) of each pixel, `[n, 2, h, w]`, after so many steps.

        Only a recurrent mask head takes steps.

        Raises:
            RuntimeError: the call is traced, or recorded; but what is computed depends on what is seen.
        """
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # torch's own
        if tracing or (images.is_cuda and torch.cuda.is_current_stream_capturing()):
            raise RuntimeError("what is computed depends on what is seen: there is no graph for all images")
        together = max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
        count = self.steps if steps is None else steps
        return torch.cat([self._maps(part, count) for part in torch.split(images, together)])

    def losses(self, images: Tensor, targets: Tensor, settle: Settle) -> Learned:
        """Each head's loss of images `[n, c, h, w]` and targets `[n, h, w]`.

        Args:
            images: normalised.
            targets: of the task `Panoptic`.
            settle: iterates the recurrent mask head, under autograd.
        """
        size = (images.shape[2], images.shape[3])
        truths = [truth(target, self.things) for target in targets]
        pyramid = self.pyramid(self.backbone(images))
        found = self.proposals(pyramid)
        losses = proposal_losses(found, [one.boxes for one in truths])
        logits = enlarged(self.semantic(pyramid[:-1]), *size)
        losses["semantic"] = _semantic_loss(logits, torch.stack([one.labels for one in truths]))
        proposed = propose(found, size, 2 * self.limits.proposals, self.limits.proposals)
        sampled = [
            _sampled(boxes, one, self.limits.regions, self.things)
            for boxes, one in zip(with_objects(proposed, [one.boxes for one in truths]), truths, strict=True)
        ]
        regions = self._read(pyramid, [one.boxes for one in sampled], SIDE)
        boxes, classes = (torch.cat([getattr(one, name) for one in sampled]) for name in ("boxes", "classes"))
        true = torch.cat([_rows(each.boxes, one.matched) for each, one in zip(truths, sampled, strict=True)])
        said, deltas = self.boxes(regions)
        losses |= box_losses(said, deltas, boxes, classes, true)
        covered, arrived = self._mask_loss(pyramid, truths, sampled, settle)
        losses["masks"] = covered
        return Learned(losses, arrived)

    def _mask_loss(
        self, pyramid: list[Tensor], truths: list[Truth], sampled: list[_Sampled], settle: Settle
    ) -> tuple[Tensor, FixedPoint | None]:
        things = [one.of_things(self.things) for one in sampled]
        classes = torch.cat([one.classes for one in things])
        if not len(classes):
            return pyramid[0].new_zeros(()), None
        wanted = [
            roi_align(each.masks.float(), one.boxes, 2 * MASK_SIDE)[_each(one.matched), one.matched]
            for each, one in zip(truths, things, strict=True)
            if len(one.matched)
        ]
        logits, found = self.masks(self._read(pyramid, [one.boxes for one in things], MASK_SIDE), settle)
        return mask_loss(logits, classes, (torch.cat(wanted) >= 0.5).float()), found

    def _maps(self, images: Tensor, steps: int) -> Tensor:
        size = (images.shape[2], images.shape[3])
        pyramid = self.pyramid(self.backbone(images))
        stuff = enlarged(self.semantic(pyramid[:-1]), *size)
        proposed = propose(self.proposals(pyramid), size, self.limits.proposals, self.limits.proposals)
        counts = [len(boxes) for boxes in proposed]
        logits, deltas = self.boxes(self._read(pyramid, proposed, SIDE))
        # Things below the confidence would not be in the map, and hide none that are.
        found = [
            detect(*said, size, self.limits.confidence, self.limits.detections)
            for said in zip(logits.split(counts), deltas.split(counts), proposed, strict=True)
        ]
        masks = self._cover(pyramid, found, steps)
        return torch.stack(
            [
                merged(own, covers, seen, self.things, self.limits.least_stuff)
                for own, covers, seen in zip(found, masks, stuff, strict=True)
            ]
        )

    def _cover(self, pyramid: list[Tensor], found: list[Detections], steps: int) -> list[Tensor]:
        """Each thing's mask, as probabilities in its box."""
        counts, classes = [len(one.boxes) for one in found], torch.cat([one.classes for one in found])
        if not len(classes):
            return [pyramid[0].new_zeros(0, 1, 1) for _ in found]
        regions = self._read(pyramid, [one.boxes for one in found], MASK_SIDE)
        logits, _ = self.masks(regions, lambda step, start: iterate(step, start, steps))
        own = logits[_each(classes), classes]
        return list(own.sigmoid().split(counts))

    def _read(self, pyramid: list[Tensor], boxes: list[Tensor], side: int) -> Tensor:
        return pooled(pyramid[:-1], STRIDES[:-1], boxes, side)


@final
@dataclass(frozen=True, slots=True)
class _Sampled:
    """Proposals of one image that are learnt from."""

    boxes: Tensor
    classes: Tensor
    """`[k]`; as many as there are: no thing."""
    matched: Tensor
    """Which of the true things, `[k]`."""

    def of_things(self, things: int) -> _Sampled:
        is_thing = self.classes < things
        return _Sampled(self.boxes[is_thing], self.classes[is_thing], self.matched[is_thing])


def _sampled(proposals: Tensor, true: Truth, count: int, things: int) -> _Sampled:
    matched, labels = match(overlaps(true.boxes, proposals), IS_THING, IS_THING, each=False)
    objects, ground = sample(labels, count, THINGS)
    chosen = torch.cat([objects, ground])
    classes = torch.full_like(chosen, things)
    classes[: len(objects)] = true.classes[matched[objects]]
    return _Sampled(proposals[chosen], classes, matched[chosen])


def _each(rows: Tensor) -> Tensor:
    return torch.arange(len(rows), device=rows.device)


def _rows(boxes: Tensor, matched: Tensor) -> Tensor:
    return boxes[matched] if len(boxes) else boxes.new_zeros(len(matched), 4)


def _semantic_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over labelled pixels; 0 where there are none."""
    count = (labels != IGNORED).sum().clamp(min=1)
    return functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / count
