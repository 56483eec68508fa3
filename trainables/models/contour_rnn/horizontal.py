"""The kernels by which units excite and inhibit their neighbours, and the biases of the gates over them."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from trainables.same_convolution import AnyForm, Convolution, Form, fastest_form, same_convolution

Symmetry = Literal["kernel", "gradient", "none"]
GateBias = Literal["chronos", "uniform"]


@final
class HorizontalKernel(nn.Module):
    """Weights `[c, c, k, k]` between channels and their neighbourhoods.

    Linsley et al. (2018) tie the two directions between channels: the weights start equal to their transpose over the
    two channel axes, and their gradient is averaged with its own (`kernel`); about half of the parameters are free.
    Kim et al. (2020) and the hGRU's port to PyTorch do the second without the first, so that what was asymmetric stays
    so (`gradient`). C-RBP does neither (`none`).
    """

    def __init__(self, weight: Tensor, *, symmetry: Symmetry, form: AnyForm) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.symmetry, self.form = symmetry, form

    def effective(self) -> Tensor:
        """The weights that are used."""
        mean = (self.weight + self.weight.transpose(0, 1)) / 2
        if self.symmetry == "kernel":
            return mean
        # As they are, with the gradient of their mean: the other two terms cancel.
        return self.weight.detach() + (mean - mean.detach()) if self.symmetry == "gradient" else self.weight

    def over(self, like: Tensor) -> Convolution:
        """The convolution by these weights, for maps of this shape."""
        form = form_of(self.form, self.weight.shape[-1], like)
        return same_convolution(self.effective(), like.shape[2], like.shape[3], form)


def form_of(form: AnyForm, kernel: int, maps: Tensor) -> Form:
    """The form of a convolution over such maps, chosen if it is left open."""
    if form != "auto":
        return form
    device = maps.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else maps.dtype
    return fastest_form(kernel, maps.shape[1], maps.device, dtype)


def layout_of(form: AnyForm, kernel: int, maps: Tensor) -> torch.memory_format:
    """The memory layout in which convolutions of that form over such maps are fastest."""
    return torch.channels_last if form_of(form, kernel, maps) == "direct" else torch.contiguous_format


def gate_bias(channels: int, steps: int, kind: GateBias) -> Tensor:
    """Biases `[c]` with which gates remember for 1 to steps - 1 steps: log U(1, T - 1).

    Tallec and Ollivier, "Can recurrent neural networks warp time?" (2018), section 3. The public PyTorch code draws
    U(1, 7) whatever the steps, computes the logarithm and throws it away (`uniform`): its gates move very slowly at
    first.
    """
    if kind == "uniform":
        return torch.empty(channels).uniform_(1, 7)
    return torch.empty(channels).uniform_(1, max(steps - 1, 1)).log()
