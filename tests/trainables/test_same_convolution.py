"""Large convolutions: both forms give the same numbers and gradients, and a survey sees them at no cost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from trainables.same_convolution import fastest_form, only_shapes, same_convolution, smooth


@settings(max_examples=20)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    half=st.integers(0, 5),
    images=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_fourier_and_direct_agree_to_second_gradients(
    rows: int, columns: int, half: int, images: int, channels: tuple[int, int]
) -> None:
    """Values, gradients by maps and kernel, and the gradients of those, whatever the sizes."""
    torch.manual_seed(0)
    maps = torch.randn(images, channels[0], rows, columns, requires_grad=True)
    kernel = torch.randn(channels[1], channels[0], 2 * half + 1, 2 * half + 1, requires_grad=True)
    incoming = torch.randn(images, channels[1], rows, columns, requires_grad=True)
    seen = []
    for form in ("direct", "fourier"):
        made = same_convolution(kernel, rows, columns, form)(maps)  # type: ignore[arg-type]
        first = torch.autograd.grad(made, [maps, kernel], incoming, create_graph=True)
        along = [torch.ones_like(one) for one in first]
        seen.append([made, *first, *torch.autograd.grad(first, [maps, kernel, incoming], along)])
    for direct, fourier in zip(*seen, strict=True):
        scale = float(direct.detach().abs().max()) + 1e-3
        torch.testing.assert_close(fourier, direct, rtol=0, atol=2e-5 * scale)


def test_a_kernel_made_ready_once_serves_many_maps() -> None:
    """Its gradient is the sum over all of them."""
    torch.manual_seed(0)
    kernel = torch.randn(2, 2, 7, 7, requires_grad=True)
    maps = torch.randn(3, 1, 2, 9, 9)
    ready = same_convolution(kernel, 9, 9, "fourier")
    (ours,) = torch.autograd.grad(sum(ready(one).square().sum() for one in maps), kernel)
    (reference,) = torch.autograd.grad(
        sum(functional.conv2d(one, kernel, padding=3).square().sum() for one in maps), kernel
    )
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-2)


def test_a_survey_sees_direct_convolutions_and_computes_none() -> None:
    """Shapes are right, numbers are zeros."""
    with only_shapes():
        made = same_convolution(torch.ones(5, 3, 15, 15), 40, 30, "fourier")(torch.ones(2, 3, 40, 30))
    assert made.shape == (2, 5, 40, 30)
    assert not made.any()


@pytest.mark.parametrize(("length", "expected"), [(1, 2), (7, 8), (38, 40), (157, 160), (161, 162)])
def test_sizes_of_transforms_have_small_factors(length: int, expected: int) -> None:
    """Even, and a product of 2, 3 and 5."""
    assert expected == smooth(length)


def test_small_kernels_are_met_directly() -> None:
    """A 3x3 kernel, or one of few channels, is less work than its transforms; a 15x15 one of 25 is more on a CPU,
    whatever its precision and instructions."""
    cpu = torch.device("cpu")
    for dtype in (torch.float32, torch.bfloat16):
        assert fastest_form(3, 25, cpu, dtype) == "direct"
        assert fastest_form(5, 8, cpu, dtype) == "direct"
        assert fastest_form(15, 25, cpu, dtype) == "fourier"
