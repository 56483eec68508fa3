"""The hGRU with softplus in the place of rectification: the segmentation network of the C-RBP paper."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.fixed_point import Step
from trainables.models.contour_rnn.horizontal import GateBias, HorizontalKernel, Symmetry, gate_bias
from trainables.models.contour_rnn.normalization import Statistics, StepNorm
from trainables.same_convolution import AnyForm, Convolution


@final
class SoftplusHGRU(nn.Module):
    """One state `[n, c, h, w]` and how it changes under a drive of the same shape.

    Linsley, Karkada Ashok, Govindarajan, Liu and Serre (2020), appendix. With N batch norm, s the logistic function,
    + the softplus, * a convolution and products elsewhere by channel:

        g1 = s(U1 h + b1);  c1 = N(W1 * (h g1));  z = +(x - +((alpha h + mu) c1))
        g2 = s(U2 z + b2);  c2 = N(W2 * z);       h' = +(kappa z + gamma c2 + omega z c2)
        h <- +((1 - g2) h + g2 h')

    The published module holds two more batch norms than it uses; they are here for its number of parameters, 284,227
    with 25 channels and kernels of 15.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        steps: int,
        *,
        statistics: Statistics,
        symmetry: Symmetry,
        bias: GateBias,
        form: AnyForm,
    ) -> None:
        super().__init__()
        kernels = [nn.init.orthogonal_(torch.empty(channels, channels, kernel, kernel)) for _ in range(2)]
        self.kernels = nn.ModuleList(HorizontalKernel(one, symmetry=symmetry, form=form) for one in kernels)
        self.gates = nn.ParameterList(nn.init.orthogonal_(torch.empty(channels, channels, 1, 1)) for _ in range(2))
        drawn = gate_bias(channels, steps, bias)
        self.gate_biases = nn.ParameterList([drawn, -drawn])
        self.alpha, self.mu, self.gamma, self.kappa, self.omega = (
            nn.Parameter(torch.full((channels, 1, 1), value)) for value in (0.1, 1.0, 1.0, 0.5, 0.5)
        )
        self.norms = nn.ModuleList(StepNorm(channels, steps, weight=0.1, statistics=statistics) for _ in range(4))
        for unused in (0, 2):
            self.norms[unused].requires_grad_(False)

    def start(self, drive: Tensor) -> Tensor:
        """The state before the first step: zeros."""
        return torch.zeros_like(drive)

    def step(self, drive: Tensor) -> Step:
        """The map of one drive `[n, c, h, w]`."""
        inhibition, excitation = (kernel.over(drive) for kernel in self.kernels)  # type: ignore[operator]

        def advance(state: Tensor, t: int) -> Tensor:
            return self._advance(drive, state, t, inhibition, excitation)

        return advance

    def visible(self, state: Tensor, drive: Tensor) -> Tensor:
        """What is read out of a state: all of it."""
        return state

    def _advance(
        self, drive: Tensor, state: Tensor, t: int, inhibition: Convolution, excitation: Convolution
    ) -> Tensor:
        plus = functional.softplus
        first = torch.sigmoid(functional.conv2d(state, self.gates[0], self.gate_biases[0]))
        met = self.norms[1](inhibition(state * first), t)
        between = plus(drive - plus(met * torch.addcmul(self.mu, self.alpha, state)))
        second = torch.sigmoid(functional.conv2d(between, self.gates[1], self.gate_biases[1]))
        helped = self.norms[3](excitation(between), t)
        # kappa z + gamma c2 + omega z c2, in fewer passes over the maps.
        gain = torch.addcmul(self.kappa, self.omega, helped)
        candidate = plus(torch.addcmul(self.gamma * helped, between, gain))
        return plus(torch.lerp(state.float(), candidate.float(), second.float()))
