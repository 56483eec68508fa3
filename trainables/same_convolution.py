"""Convolutions that keep an image's size, with kernels so large that how they are computed decides the speed.

A kernel is made ready once and then met by many maps: in a recurrent network, those of every step. Two forms give the
same numbers (to rounding): `direct`, torch's own, and `fourier`, float32 products of spectra, whose work does not
depend on the kernel's size. Axes: n images, c or i channels in, o channels out, h rows, w columns, f frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainables.precision import has_bfloat16

Form = Literal["direct", "fourier"]
AnyForm = Literal["auto", "direct", "fourier"]
Convolution = Callable[[Tensor], Tensor]
FOURIER_FROM = 500
"""Multiply-adds of a pixel (channels in times taps) from which Fourier transforms are faster in float32."""
_only_shapes: ContextVar[bool] = ContextVar("only_shapes", default=False)


def fastest_form(kernel: int, channels: int, device: torch.device, dtype: torch.dtype) -> Form:
    """The form to take for square kernels of a size, over maps of so many channels, in a precision.

    A rule and no timing, so that equal seeds give equal numbers: benchmarks/convolution_forms.py measures both forms.
    Direct convolutions are faster where there is little to do, and in bfloat16 on a GPU. In bfloat16 on a CPU they gain
    a factor of two at most, and with kernels of 15 x 15 oneDNN's gradients take hundreds of times as long.
    """
    if channels * kernel**2 < FOURIER_FROM:
        return "direct"
    return "direct" if dtype == torch.bfloat16 and device.type == "cuda" and has_bfloat16(device) else "fourier"


def same_convolution(kernel: Tensor, rows: int, columns: int, form: Form) -> Convolution:
    """A convolution by `kernel` `[o, i, k, k]` (k odd) with zeros around the image, made ready for maps of one size.

    What it gives takes maps `[n, i, h, w]` to `[n, o, h, w]`; gradients, second ones too, go to maps and kernel.

    Raises:
        ValueError: the form is `fourier` in a call that is traced by torch.jit.
    """
    if _only_shapes.get():
        return lambda maps: _shaped(maps, kernel)
    if form == "direct":
        return lambda maps: functional.conv2d(maps, kernel, padding=kernel.shape[-1] // 2)
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch's own
        raise ValueError("convolutions by Fourier transforms cannot be traced; need the form direct")
    return _fourier(kernel, rows, columns)


@contextmanager
def only_shapes() -> Iterator[None]:
    """In here these convolutions give zeros at no cost, and let whoever watches torch's operators see direct ones."""
    token = _only_shapes.set(True)
    try:
        yield
    finally:
        _only_shapes.reset(token)


def _shaped(maps: Tensor, kernel: Tensor) -> Tensor:
    seen = functional.conv2d(maps.to("meta"), kernel.to("meta"), padding=kernel.shape[-1] // 2)
    return maps.new_zeros(seen.shape)


def _fourier(kernel: Tensor, rows: int, columns: int) -> Convolution:
    half = kernel.shape[-1] // 2
    size = (smooth(rows + half), smooth(columns + half))  # zeros beyond the image serve both of its ends
    with torch.autocast(kernel.device.type, enabled=False):
        spectrum: Tensor = _KernelSpectrum.apply(kernel.float(), size)  # type: ignore[no-untyped-call]  # torch's own

    def convolve(maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            return to_images(torch.bmm(to_frequencies(maps.float(), size), spectrum), size, (rows, columns))

    return convolve


def smooth(length: int) -> int:
    """The least even number from `length` on without prime factors above 5: FFTs of such sizes are fast."""
    length += length % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


def to_frequencies(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Half spectra `[f, n, c]` of real maps `[n, c, h, w]` with zeros after them up to `size`."""
    spectra: Tensor = _ToFrequencies.apply(maps, size)  # type: ignore[no-untyped-call]  # torch's own
    return spectra


def to_images(spectra: Tensor, size: tuple[int, int], crop: tuple[int, int]) -> Tensor:
    """The upper left `crop` of the real maps `[n, c, *size]` with these half spectra `[f, n, c]`."""
    maps: Tensor = _ToImages.apply(spectra, size, crop)  # type: ignore[no-untyped-call]  # torch's own
    return maps


# Gradients of spectra are scaled throughout such that the transform is an isometry: divided by the number of pixels,
# and times two where a frequency stands for its mirror image as well. Then each transform is the other's transpose,
# and products of spectra have their ordinary gradients; only these two functions ever see a spectrum's gradient.


class _KernelSpectrum(torch.autograd.Function):
    """`[f, i, o]` of a kernel `[o, i, k, k]` with its middle at the origin, conjugate (convolutions are correlations).

    A few taps take less work as products with the matrices of the transform than as large maps of zeros.
    """

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.size, ctx.shape = size, kernel.shape
        rows, columns = _waves(kernel.shape[-1], size, kernel.device)
        taps = kernel.permute(2, 3, 1, 0).flatten(2).to(columns.dtype)  # rows, columns, i o
        spectrum = rows @ (columns @ taps).flatten(1)
        return spectrum.view(-1, kernel.shape[1], kernel.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _KernelTaps.apply(gradient, ctx.size, ctx.shape), None  # type: ignore[no-untyped-call]


class _KernelTaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spectrum: Tensor, size: tuple[int, int], shape: torch.Size) -> Tensor:
        ctx.size = size
        rows, columns = _waves(shape[-1], size, spectrum.device)
        half = columns.shape[0]
        twice = torch.full((half, 1), 2.0, device=spectrum.device)
        twice[0] = twice[-1] = 1.0  # these two frequencies stand for themselves only
        back = (columns * (twice / math.prod(size))).mH
        taps = back @ (rows.mH @ spectrum.reshape(size[0], -1)).view(shape[-2], half, -1)
        return taps.real.view(shape[2], shape[3], shape[1], shape[0]).permute(3, 2, 0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _KernelSpectrum.apply(gradient, ctx.size), None, None  # type: ignore[no-untyped-call]


def _waves(taps: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The waves `[rows, taps]` and `[columns / 2 + 1, taps]` of the transform, the middle tap at the origin."""
    places = torch.arange(taps, dtype=torch.float64, device=device) - taps // 2
    made = []
    for length, count in ((size[0], size[0]), (size[1], size[1] // 2 + 1)):
        phases = torch.outer(torch.arange(count, device=device), places).mul_(2 * math.pi / length)
        made.append(torch.polar(torch.ones_like(phases), phases).to(torch.complex64))
    return made[0], made[1]


class _ToFrequencies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.size, ctx.crop = size, maps.shape[2:]
        spectra: Tensor = torch.fft.rfft2(maps, s=size)
        return spectra.flatten(0, 1).flatten(1).T.contiguous().view(-1, *maps.shape[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return to_images(gradient, ctx.size, ctx.crop), None


class _ToImages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spectra: Tensor, size: tuple[int, int], crop: tuple[int, int]) -> Tensor:
        ctx.size = size
        apart = spectra.flatten(1).T.contiguous().view(-1, size[0], size[1] // 2 + 1)
        rows = torch.fft.ifft(apart, dim=1)[:, : crop[0]]
        maps: Tensor = torch.fft.irfft(rows, n=size[1])[..., : crop[1]]
        return maps.reshape(*spectra.shape[1:], *crop)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return to_frequencies(gradient, ctx.size), None, None
