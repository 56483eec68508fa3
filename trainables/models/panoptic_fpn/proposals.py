"""Boxes that may hold a thing: the region proposal network of Ren et al., "Faster R-CNN" (2015), on a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.models.panoptic_fpn.boxes import clip, decode, encode, overlaps, suppress
from trainables.models.panoptic_fpn.matching import OBJECT, match, sample
from trainables.models.panoptic_fpn.pyramid import STRIDES

RATIOS = (0.5, 1.0, 2.0)
"""Of anchors: height over width."""
PLAIN = (1.0, 1.0, 1.0, 1.0)
LOW, HIGH = 0.3, 0.7
MEET = 0.7
"""Proposals of one level that overlap more are one."""
SAMPLED, OBJECTS = 256, 0.5
"""Anchors of an image that are learnt from, and the share of objects among them, at most."""


@final
@dataclass(frozen=True, slots=True)
class Anchored:
    """What the network says of every anchor."""

    anchors: list[Tensor]
    """Of each level, `[a, 4]`."""
    logits: list[Tensor]
    """That there is an object, of each level `[n, a]`."""
    deltas: list[Tensor]
    """Where it is then, of each level `[n, a, 4]`."""


@final
class ProposalNetwork(nn.Module):
    """Looks at every place of every level by three anchors.

    Args:
        channels: of the pyramid.
        scale: an anchor's side, in strides of its level.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.look = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, len(RATIOS), 1)
        self.deltas = nn.Conv2d(channels, 4 * len(RATIOS), 1)
        for convolution in (self.look, self.objectness, self.deltas):
            nn.init.normal_(convolution.weight, std=0.01)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

    def forward(self, pyramid: Sequence[Tensor]) -> Anchored:
        """Of all levels, the finest first."""
        found = Anchored([], [], [])
        for maps, stride in zip(pyramid, STRIDES, strict=True):
            seen = torch.relu(self.look(maps))
            found.logits.append(self.objectness(seen).float().permute(0, 2, 3, 1).flatten(1))
            found.deltas.append(self.deltas(seen).float().permute(0, 2, 3, 1).reshape(len(maps), -1, 4))
            found.anchors.append(anchors(maps.shape[2], maps.shape[3], stride, self.scale, maps.device))
        return found


def anchors(rows: int, columns: int, stride: int, scale: float, device: torch.device) -> Tensor:
    """Boxes `[rows * columns * 3, 4]` around the upper left corners of a level's cells, row by row."""
    ratios = torch.tensor(RATIOS, device=device)
    widths = scale * stride / ratios.sqrt()
    sides = torch.stack([widths, widths * ratios], dim=1)
    y, x = torch.meshgrid(
        torch.arange(rows, device=device) * stride, torch.arange(columns, device=device) * stride, indexing="ij"
    )
    corners = torch.stack([x, y], dim=2).view(-1, 1, 2)
    return torch.cat([corners - sides / 2, corners + sides / 2], dim=2).view(-1, 4)


@torch.no_grad()
def propose(found: Anchored, size: tuple[int, int], each: int, most: int) -> list[Tensor]:
    """The best boxes of each image, `[k, 4]`.

    Args:
        found: what the network said.
        size: rows and columns of the images.
        each: the anchors of a level that are looked at, the best ones.
        most: boxes of an image that are kept.
    """
    proposals = []
    for image in range(len(found.logits[0])):
        boxes, scores = [], []
        for own, logits, deltas in zip(found.anchors, found.logits, found.deltas, strict=True):
            best, at = logits[image].topk(min(each, len(own)))
            placed = clip(decode(deltas[image, at], own[at], PLAIN), *size)
            usable = placed.isfinite().all(dim=1) & (placed[:, 2:] > placed[:, :2]).all(dim=1)
            placed, best = placed[usable], best[usable]
            kept = suppress(placed, best, MEET)
            boxes.append(placed[kept])
            scores.append(best[kept])
        proposals.append(torch.cat(boxes)[torch.cat(scores).argsort(descending=True, stable=True)[:most]])
    return proposals


def proposal_losses(found: Anchored, objects: Sequence[Tensor]) -> dict[str, Tensor]:
    """Cross-entropy of objects against ground, and absolute errors of where they are; means over sampled anchors.

    Args:
        found: what the network said.
        objects: true boxes of each image, `[g, 4]`.
    """
    own, logits, deltas = torch.cat(found.anchors), torch.cat(found.logits, dim=1), torch.cat(found.deltas, dim=1)
    told, place = logits.new_zeros(()), logits.new_zeros(())
    for image, boxes in enumerate(objects):
        matched, labels = match(overlaps(boxes, own), LOW, HIGH, each=True)
        things, ground = sample(labels, SAMPLED, OBJECTS)
        chosen = torch.cat([things, ground])
        wanted = (labels[chosen] == OBJECT).float()
        told = told + functional.binary_cross_entropy_with_logits(logits[image, chosen], wanted, reduction="sum")
        if len(things):
            true = encode(boxes[matched[things]], own[things], PLAIN)
            place = place + (deltas[image, things] - true).abs().sum()
    count = SAMPLED * len(objects)
    return {"objectness": told / count, "proposals": place / count}
