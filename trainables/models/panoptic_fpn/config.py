"""The family `panoptic_fpn`: Panoptic FPN with a mask head that may be recurrent, and the rules that it learns by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self, final

import torch
from torch import Tensor, nn

from trainables.config import Config, ConfigError, Fault, setting
from trainables.family import Diverged, FamilyConfig, TrainingLoss
from trainables.fixed_point import FixedPoint, Rule, lipschitz_penalty, settled, told
from trainables.models.panoptic_fpn.backbone import LAYOUTS, Backbone, Normalization, ResNet
from trainables.models.panoptic_fpn.network import Limits, PanopticFPN
from trainables.tasks import Panoptic, Task
from trainables.train_config import TrainConfig

SMALLEST = 33
"""Rows and columns of images; then the coarsest of the maps that are added up has more than one."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyConfig(Config):
    """The Lipschitz coefficient penalty of c_bptt and c_rbp; the published settings for panoptic segmentation."""

    threshold: float = setting(0.95, help="lambda: column sums of the last step's Jacobian above it are penalised")
    weight: float = setting(0.001, at_least=0, help="of the penalty beside the heads' losses")
    reduction: Literal["mean", "sum"] = setting(
        "sum", help="of the squared excess, over the state's elements and all things of the images"
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticFPNConfig(FamilyConfig):
    """A residual network, a feature pyramid, heads for things, masks and stuff: Kirillov et al. 2019, as in Detectron2.

    Linsley et al. 2020, the C-RBP paper, put a recurrent cell in the place of the mask head's four convolutions.
    """

    backbone: Backbone = setting("resnet50", help="below the pyramid; small: four blocks, for small machines")
    normalization: Normalization = setting(
        "group",
        help="in the backbone; frozen_batch: the scales and shifts that come with pretrained weights, never trained",
    )
    frozen: int = setting(
        0, at_least=0, at_most=5, help="parts of the backbone that keep their weights; with pretrained ones 2 is usual"
    )
    channels: int = setting(256, at_least=2, at_most=4096, help="of the pyramid and the mask head")
    hidden: int = setting(1024, at_least=1, at_most=65_536, help="units of the box head's two layers")
    anchor: float = setting(8.0, above=0, help="an anchor's side, in strides of its level: 4, 8, 16, 32, 64 pixels")
    mask_head: Literal["recurrent", "convolutions"] = setting(
        "recurrent", help="the recurrent cell, or Mask R-CNN's four convolutions"
    )
    steps: int = setting(20, at_least=1, at_most=1000, help="of the cell, in training and unless asked for others")
    rule: Rule = setting(
        "c_rbp", help="back-propagation through time or recurrent back-propagation; c_: with the penalty"
    )
    solver: Literal["neumann", "anderson", "gmres"] = setting(
        "neumann", help="how rbp and c_rbp solve for the gradient; neumann is the published one"
    )
    neumann_terms: int = setting(
        15, at_least=0, at_most=1000, help="the most products with the Jacobian that the solver takes, beside the 1"
    )
    penalty: PenaltyConfig = setting(PenaltyConfig(), help="of c_bptt and c_rbp")
    semantic_weight: float = setting(0.5, at_least=0, help="of the loss of stuff; those of things weigh 1")
    proposals: int = setting(1000, at_least=1, at_most=10_000, help="boxes of an image that are looked into")
    regions: int = setting(512, at_least=1, at_most=10_000, help="of them, so many are learnt from")
    detections: int = setting(100, at_least=1, at_most=999, help="things of an image, at most")
    confidence: float = setting(0.5, at_least=0.05, at_most=1, help="things that are less probable are left out")
    least_stuff: float = setting(
        0.0133,
        at_least=0,
        at_most=1,
        help="stuff on a smaller share of the image is left out: 4,096 of 640 x 480 pixels",
    )
    things: int | None = setting(None, at_least=1, help="categories of things; none: as many as the data have")
    stuff: int | None = setting(None, at_least=1, help="categories of stuff; none: as many as the data have")

    @property
    def tasks(self) -> frozenset[str]:
        """Panoptic segmentation."""
        return frozenset({"panoptic"})

    @property
    def trains_whole(self) -> bool:
        """No: the map that a call gives is made of no training batch."""
        return False

    def fitted(self, task: Task) -> Self:
        """With the task's categories."""
        assert isinstance(task, Panoptic)
        counts = {"things": len(task.things), "stuff": len(task.stuff)}
        faults = [
            Fault((name,), f"need {count}, as many as the data have, got {getattr(self, name)}")
            for name, count in counts.items()
            if getattr(self, name) not in (None, count)
        ]
        if faults:
            raise ConfigError(faults)
        return dataclasses.replace(self, things=counts["things"], stuff=counts["stuff"])

    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> PanopticFPN:
        """The network for images of any size from 33 x 33.

        Raises:
            ValueError: the images are smaller, or nobody has said how many categories there are.
        """
        if min(input_shape[1:]) < SMALLEST:
            raise ValueError(f"panoptic_fpn: need images of at least {SMALLEST} x {SMALLEST}, got {input_shape[1:]}")
        if self.things is None or self.stuff is None:
            raise ValueError(f"panoptic_fpn: need things and stuff, got {self.things} and {self.stuff}")
        return PanopticFPN(
            ResNet(input_shape[0], LAYOUTS[self.backbone], self.normalization, self.frozen),
            things=self.things,
            stuff=self.stuff,
            channels=self.channels,
            hidden=self.hidden,
            anchor=self.anchor,
            recurrent=self._is_recurrent,
            steps=self.steps,
            limits=Limits(self.proposals, self.regions, self.detections, self.confidence, self.least_stuff),
        )

    def training_loss(
        self, module: nn.Module, inputs: Tensor, targets: Tensor, *, task: Task, train: TrainConfig, progress: float
    ) -> TrainingLoss:
        """The sum of the heads' losses and of the penalty; no map is made of a batch.

        Raises:
            Diverged: the loss, or the recurrent state, ceased to be finite.
        """
        assert isinstance(module, PanopticFPN)
        settle = partial(settled, self.rule, steps=self.steps, solver=self.solver, terms=self.neumann_terms)
        learned = module.losses(inputs, targets, settle)
        weights = {"semantic": self.semantic_weight}
        loss = torch.stack([weights.get(name, 1.0) * value for name, value in learned.losses.items()]).sum()
        measured = {name: value.detach() for name, value in learned.losses.items()}
        module.solves = []
        if learned.found is not None:
            loss, more = self._with_penalty(loss, learned.found)
            measured |= more
            module.solves = learned.found.solves
        if not bool(loss.isfinite()):
            raise Diverged("the loss is not finite")
        return TrainingLoss(None, loss, {**measured, "loss": loss.detach()})

    def inspect(self, module: nn.Module, *, train: TrainConfig, progress: float) -> Mapping[str, float]:
        """How the last backward solve of rbp or c_rbp went."""
        assert isinstance(module, PanopticFPN)
        if not module.solves:
            return {}
        last = module.solves[-1]
        return {"backward/terms": float(last.iterations), "backward/residual": last.residual}

    @property
    def _is_recurrent(self) -> bool:
        return self.mask_head == "recurrent"

    def _with_penalty(self, loss: Tensor, found: FixedPoint) -> tuple[Tensor, dict[str, Tensor]]:
        went = found.statistics
        if went.reason == "diverged":
            raise Diverged(f"the state is not finite after {went.iterations} of {self.steps} steps of the mask head")
        measured = told(found)
        if self.rule in ("c_bptt", "c_rbp"):
            penalty, largest = lipschitz_penalty(
                found.before, found.after, threshold=self.penalty.threshold, reduction=self.penalty.reduction
            )
            loss = loss + self.penalty.weight * penalty
            measured |= {"penalty": penalty.detach(), "largest_column_sum": largest}
        return loss, measured
