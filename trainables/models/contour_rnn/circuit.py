"""The horizontal circuit of the hGRU: units inhibit their neighbours, then excite them, behind two gates.

Linsley, Kim, Veerabadran, Windolf and Serre, "Learning long-range spatial dependencies with horizontal gated recurrent
units" (2018), equations 4 to 9; as Kim, Linsley, Thakkar and Serre (2020) use it, with rectification and two kernels.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.fixed_point import Step
from trainables.models.contour_rnn.horizontal import GateBias, HorizontalKernel, Symmetry, gate_bias
from trainables.models.contour_rnn.normalization import Statistics, StepNorm
from trainables.same_convolution import AnyForm, Convolution

Normalization = Literal["shared", "per_step", "none"]
INITIAL_SCALE = 0.1
"""Of the batch norms inside."""


@final
class Circuit(nn.Module):
    """One state `[n, c, h, w]` and how it changes under a drive of the same shape.

    With N batch norm, s the logistic function, * a convolution and products elsewhere by channel:

        g1 = s(N(U1 h + b1));  c1 = N(W1 * (h g1));  z = phi(x - [(alpha h + mu) c1])
        g2 = s(N(U2 z + b2));  c2 = N(W2 * z);       h' = phi(kappa (z + gamma c2) + omega z gamma c2)
        h <- g2 h + (1 - g2) h'

    Args:
        channels: c.
        kernel: side of the square kernels W; odd.
        steps: that training takes.
        rectified: phi is the rectifier, and rectifies the inhibition in brackets too (2020); else it is tanh (2018).
        one_kernel: W2 is W1.
        normalization: `shared`: one weight for all steps; `per_step`; `none`: no N, each state is scaled instead.
        statistics, symmetry, bias, form: see `StepNorm`, `HorizontalKernel`, `gate_bias`, `same_convolution`.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        steps: int,
        *,
        rectified: bool,
        one_kernel: bool,
        normalization: Normalization,
        statistics: Statistics,
        symmetry: Symmetry,
        bias: GateBias,
        form: AnyForm,
    ) -> None:
        super().__init__()
        self.channels, self.rectified = channels, rectified
        weights = [
            _drawn(channels, channels, kernel, kernel, std=(channels * kernel**2) ** -0.5)
            for _ in range(1 if one_kernel else 2)
        ]
        self.kernels = nn.ModuleList(HorizontalKernel(one, symmetry=symmetry, form=form) for one in weights)
        # TensorFlow takes a vector for a kernel from one channel to c. In 2018 weights are scaled by the mean of those
        # two (Xavier), in 2020 by the first, which makes no difference elsewhere.
        spread = 1.0 if rectified else (2 / (1 + channels)) ** 0.5
        self.alpha, self.mu, self.gamma, self.kappa, self.omega = (
            nn.Parameter(_drawn(channels, 1, 1, std=spread)) for _ in range(5)
        )
        self.gates = nn.ParameterList(_drawn(channels, channels, 1, 1, std=channels**-0.5) for _ in range(2))
        drawn = gate_bias(channels, steps, bias)
        self.gate_biases = nn.ParameterList([-drawn, drawn.clone()])
        self.norms: nn.ModuleList | None = None
        self.scales: nn.Parameter | None = None
        if normalization == "none":
            self.scales = nn.Parameter(torch.rand(steps))
        else:
            self.norms = nn.ModuleList(
                StepNorm(
                    channels,
                    steps,
                    per_step=normalization == "per_step",
                    bias=False,
                    weight=INITIAL_SCALE,
                    statistics=statistics,
                )
                for _ in range(4)
            )

    def start(self, drive: Tensor) -> Tensor:
        """The state before the first step: zeros. The public code of 2018 draws it at random, in tests too."""
        return torch.zeros_like(drive)

    def step(self, drive: Tensor) -> Step:
        """The map of one drive `[n, c, h, w]`."""
        convolutions = [kernel.over(drive) for kernel in self.kernels]  # type: ignore[operator]

        def advance(state: Tensor, t: int) -> Tensor:
            return self._advance(drive, state, t, convolutions[0], convolutions[-1])

        return advance

    def visible(self, state: Tensor, drive: Tensor) -> Tensor:
        """What is read out of a state: all of it."""
        return state

    def _advance(
        self, drive: Tensor, state: Tensor, t: int, inhibition: Convolution, excitation: Convolution
    ) -> Tensor:
        first = torch.sigmoid(self._norm(0, functional.conv2d(state, self.gates[0], self.gate_biases[0]), t))
        met = self._norm(1, inhibition(state * first), t)
        inhibited = torch.addcmul(self.mu, self.alpha, state) * met
        between = torch.relu(drive - torch.relu(inhibited)) if self.rectified else torch.tanh(drive - inhibited)
        second = torch.sigmoid(self._norm(2, functional.conv2d(between, self.gates[1], self.gate_biases[1]), t))
        helped = self.gamma * self._norm(3, excitation(between), t)
        # kappa (z + y) + omega z y with y = gamma c2, in fewer passes over the maps.
        gain = torch.addcmul(self.kappa, self.omega, helped)
        excited = torch.addcmul(self.kappa * helped, between, gain)
        candidate = torch.relu(excited) if self.rectified else torch.tanh(excited)
        after = torch.lerp(candidate.float(), state.float(), second.float())
        return after if self.scales is None else self.scales[min(t, len(self.scales) - 1)] * after

    def _norm(self, which: int, maps: Tensor, t: int) -> Tensor:
        if self.norms is None:
            return maps
        normalised: Tensor = self.norms[which](maps, t)
        return normalised


def _drawn(*shape: int, std: float) -> Tensor:
    """Normal, cut off at twice its width, and of this standard deviation once it is."""
    width = std / 0.8796
    return nn.init.trunc_normal_(torch.empty(shape), std=width, a=-2 * width, b=2 * width)
