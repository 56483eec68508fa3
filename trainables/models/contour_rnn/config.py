"""The family `contour_rnn`: recurrent networks that trace contours, and the rules that they learn by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, final

from torch import Tensor, nn

from trainables.config import Config, setting
from trainables.family import Diverged, FamilyConfig, TrainingLoss
from trainables.fixed_point import Rule, lipschitz_penalty, settled, told
from trainables.models.contour_rnn.circuit import Circuit, Normalization
from trainables.models.contour_rnn.conv_lstm import ConvLSTM
from trainables.models.contour_rnn.ends import GaborDrive, ImageReadout, PixelReadout, PooledDrive
from trainables.models.contour_rnn.feed_forward import FeedForward
from trainables.models.contour_rnn.feedback import Feedback, HorizontalOnly
from trainables.models.contour_rnn.horizontal import GateBias, Symmetry, layout_of
from trainables.models.contour_rnn.network import ContourRNN
from trainables.models.contour_rnn.normalization import Statistics
from trainables.models.contour_rnn.softplus_hgru import SoftplusHGRU
from trainables.same_convolution import AnyForm
from trainables.tasks import Task
from trainables.train_config import TrainConfig

HIERARCHICAL = ("hcnn", "td_hcnn")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyConfig(Config):
    """The Lipschitz coefficient penalty of c_bptt and c_rbp; the published settings for Pathfinder."""

    threshold: float = setting(0.9, help="lambda: column sums of the last step's Jacobian above it are penalised")
    weight: float = setting(10.0, at_least=0, help="of the penalty beside the task's loss")
    reduction: Literal["mean", "sum"] = setting(
        "mean", help="of the squared excess, over the state's elements and all images"
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ContourRNNConfig(FamilyConfig):
    """A drive (Gabor filters), a recurrent circuit, a read-out.

    `hgru`: Linsley et al. 2018; `softplus_hgru`, `conv_lstm` and `feed_forward`: Linsley et al. 2020, the C-RBP paper;
    `hcnn` and `td_hcnn`: Kim et al. 2020.
    """

    network: Literal["hgru", "softplus_hgru", "conv_lstm", "feed_forward", "hcnn", "td_hcnn"] = setting(
        "softplus_hgru", help="the circuit"
    )
    readout: Literal["image", "pixels"] = setting(
        "image",
        help="image: the maximum over all pixels, for classification; pixels: each for itself, for segmentation",
    )
    channels: int | None = setting(None, at_least=1, at_most=1024, help="none: 25, of hcnn and td_hcnn 20")
    kernel: int = setting(15, at_least=1, at_most=101, help="side of the horizontal kernels; odd")
    tower: tuple[int, int] = setting((32, 128), at_least=1, at_most=8192, help="channels of td_hcnn's two upper levels")
    steps: int = setting(8, at_least=1, at_most=1000, help="of the circuit, in training and unless asked for others")
    tolerance: float | None = setting(
        None,
        above=0,
        help="an image whose state changes relatively less stays there; none: it takes all steps",
    )
    rule: Rule = setting(
        "bptt", help="back-propagation through time or recurrent back-propagation; c_: with the penalty"
    )
    solver: Literal["neumann", "anderson", "gmres"] = setting(
        "neumann", help="how rbp and c_rbp solve for the gradient; neumann is the published one"
    )
    neumann_terms: int = setting(
        15, at_least=0, at_most=1000, help="the most products with the Jacobian that the solver takes, beside the 1"
    )
    penalty: PenaltyConfig = setting(PenaltyConfig(), help="of c_bptt and c_rbp")
    largest_residual: float | None = setting(
        None, above=0, help="a last step in training that changes the state relatively more ends the trial as diverged"
    )
    normalization: Normalization | None = setting(
        None, help="batch norm's weights shared by the steps, one per_step, or none; none given: as published"
    )
    statistics: Statistics = setting(
        "running", help="of batch norm outside of training: running, or of the batch as the public code of C-RBP has it"
    )
    symmetry: Symmetry = setting(
        "kernel",
        help="of the horizontal kernels between channels: kept by kernel (published with the hGRU), of the gradient "
        "only (with td+hCNN), or none (with C-RBP)",
    )
    gate_bias: GateBias = setting(
        "chronos",
        help="initial biases of the gates: log U(1, steps - 1), or U(1, 7) as PyTorch code that lost a log has them",
    )
    convolution: AnyForm = setting("auto", help="how large convolutions are computed; the same numbers up to rounding")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Kernels have a middle, and only recurrent networks have a fixed point."""
        if self.kernel % 2 == 0:
            yield "kernel", f"need an odd number, got {self.kernel}"
        if self.network == "feed_forward" and self.rule != "bptt":
            yield "rule", f"need bptt for the network feed_forward, got {self.rule!r}"
        if self.normalization is not None and self.network not in ("hgru", *HIERARCHICAL):
            yield "normalization", f"need none given for the network {self.network}, got {self.normalization!r}"

    @property
    def tasks(self) -> frozenset[str]:
        """One answer an image, or one a pixel."""
        return frozenset({"segmentation" if self.readout == "pixels" else "classification"})

    @property
    def trains_whole(self) -> bool:
        """It calls the circuit, a step at a time."""
        return False

    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> ContourRNN:
        """The network for images of any size (td_hcnn: of at least 8 x 8).

        Raises:
            ValueError: the images are smaller.
        """
        if self.network in HIERARCHICAL and min(input_shape[1:]) < 8:
            raise ValueError(f"network: {self.network} needs images of at least 8 x 8, got {input_shape[1:]}")
        channels = self.channels or (20 if self.network in HIERARCHICAL else 25)
        feed_forward = self.network == "feed_forward"
        drive: nn.Module
        if self.network in HIERARCHICAL:
            drive = PooledDrive(input_shape[0], channels, statistics=self.statistics)
        else:
            drive = GaborDrive(input_shape[0], channels, squared=not feed_forward, statistics=self.statistics)
        readout: nn.Module
        if self.readout == "pixels":
            readout = PixelReadout(channels, outputs, normalized=not feed_forward, statistics=self.statistics)
        else:
            bias = self.network in HIERARCHICAL
            readout = ImageReadout(
                channels, outputs, normalized=not feed_forward, bias=bias, statistics=self.statistics
            )
        return ContourRNN(
            drive,
            self._cell(channels),
            readout,
            steps=1 if feed_forward else self.steps,
            tolerance=self.tolerance,
            alone=self.statistics == "running",
            layout=partial(layout_of, self.convolution, self.kernel),
        )

    def training_loss(
        self, module: nn.Module, inputs: Tensor, targets: Tensor, *, task: Task, train: TrainConfig, progress: float
    ) -> TrainingLoss:
        """The task's loss after `steps` steps, by the learning rule; with it the residual, contraction and penalty.

        Raises:
            Diverged: the state ceased to be finite, or did not come to rest where it had to.
        """
        assert isinstance(module, ContourRNN)
        dynamics = module.dynamics(inputs)
        found = settled(
            self.rule,
            dynamics.step,
            dynamics.start,
            module.steps,
            solver=self.solver,
            terms=self.neumann_terms,
            tolerance=self.tolerance,
        )
        went = found.statistics
        if went.reason == "diverged":
            raise Diverged(f"the state is not finite after {went.iterations} of {module.steps} steps of the circuit")
        if self.largest_residual is not None and went.residual > self.largest_residual:
            raise Diverged(
                f"step {went.iterations} of the circuit still changes the state by {went.residual:.3g} of its length, "
                f"need largest_residual <= {self.largest_residual:g}"
            )
        outputs = module.read_out(found.state, dynamics).float()
        loss = task.loss(outputs, targets)
        measured = told(found)
        if self.rule in ("c_bptt", "c_rbp"):
            penalty, largest = lipschitz_penalty(
                found.before, found.after, threshold=self.penalty.threshold, reduction=self.penalty.reduction
            )
            loss = loss + self.penalty.weight * penalty
            measured |= {"penalty": penalty.detach(), "largest_column_sum": largest}
        module.solves = found.solves
        return TrainingLoss(outputs, loss, measured)

    def inspect(self, module: nn.Module, *, train: TrainConfig, progress: float) -> Mapping[str, float]:
        """How the last backward solve of rbp or c_rbp went."""
        assert isinstance(module, ContourRNN)
        if not module.solves:
            return {}
        last = module.solves[-1]
        return {"backward/terms": float(last.iterations), "backward/residual": last.residual}

    def _cell(self, channels: int) -> nn.Module:
        steps, kernel, form = self.steps, self.kernel, self.convolution
        if self.network == "feed_forward":
            return FeedForward(channels, kernel, statistics=self.statistics, form=form)
        if self.network == "conv_lstm":
            return ConvLSTM(channels, kernel, form=form)
        kind: dict[str, Any] = {
            "statistics": self.statistics,
            "symmetry": self.symmetry,
            "bias": self.gate_bias,
            "form": form,
        }
        if self.network == "softplus_hgru":
            return SoftplusHGRU(channels, kernel, steps, **kind)
        if self.network == "hgru":
            kind["normalization"] = self.normalization or "shared"
            return Circuit(channels, kernel, steps, rectified=False, one_kernel=True, **kind)
        kind["normalization"] = self.normalization or "per_step"
        if self.network == "hcnn":
            return HorizontalOnly(channels, kernel, steps, **kind)
        return Feedback(channels, kernel, steps, tower=self.tower, **kind)
