"""Fixed points and their gradients, held to closed forms and to back-propagation through a long time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.trainables.kept_memory import saved_bytes
from trainables.fixed_point import SOLVERS, Solver, anderson, gmres, implicit, iterate, lipschitz_penalty, neumann

SIZE = 12


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.manual_seed(0)


def contraction(norm: float) -> Tensor:
    """A matrix of this spectral norm."""
    matrix = torch.randn(SIZE, SIZE, dtype=torch.float64)
    return matrix * (norm / torch.linalg.matrix_norm(matrix, 2))


def affine(a: Tensor, drive: Tensor) -> Callable[[Tensor, int], Tensor]:
    """H A^T + drive."""
    return lambda state, _: state @ a.T + drive


def cell(norm: float) -> tuple[Tensor, Callable[[Tensor], Callable[[Tensor, int], Tensor]]]:
    """A weight and a contractive recurrent cell of it: tanh(h W^T + x), whose Jacobian is shorter than W."""
    weight = contraction(norm).requires_grad_()
    return weight, lambda x: lambda state, _: torch.tanh(state @ weight.T + x)


@pytest.mark.parametrize("terms", [0, 1, 5, 15])
def test_a_linear_contraction_has_its_closed_gradient_up_to_the_truncation(terms: int) -> None:
    """dL/dx is (I - A^T)^-1 v, off by at most r^(K + 1) / (1 - r) |v|, and by more than nothing."""
    norm = 0.8
    a, x = contraction(norm), torch.randn(1, SIZE, dtype=torch.float64, requires_grad=True)
    v = torch.randn(SIZE, dtype=torch.float64) / 100
    found = implicit(affine(a, x), torch.zeros(1, SIZE, dtype=torch.float64), 200, solve=neumann, terms=terms)
    torch.testing.assert_close(found.state[0], torch.linalg.solve(torch.eye(SIZE) - a, x[0]))
    (gradient,) = torch.autograd.grad((found.state[0] @ v).sum(), x)
    exact = torch.linalg.solve((torch.eye(SIZE) - a).T, v)
    off = float((gradient[0] - exact).norm())
    assert 0 < off <= norm ** (terms + 1) / (1 - norm) * float(v.norm())


@pytest.mark.parametrize("solve", [anderson, gmres])
def test_the_other_solvers_solve_the_equation_in_fewer_products(solve: Solver) -> None:
    """In 24 products the Neumann series is far from the end of a slow contraction, whose solution they have."""
    a = contraction(1.0)
    a = (a + a.T) / torch.linalg.matrix_norm(a + a.T, 2) * 0.98
    v = torch.randn(SIZE, dtype=torch.float64) / 100
    exact = torch.linalg.solve((torch.eye(SIZE) - a).T, v)
    solution, statistics = solve(lambda vector: vector @ a, v, 24)
    series, _ = neumann(lambda vector: vector @ a, v, 24, largest=math.inf)
    assert float((solution - exact).norm()) < 1e-4 * float(exact.norm())
    assert float((series - exact).norm()) > 1e-2 * float(exact.norm())
    assert statistics.reason == "converged"
    assert statistics.iterations <= 24
    assert statistics.residual < 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_recurrent_equals_long_ordinary_back_propagation(solver: str) -> None:
    """On a contractive cell the two gradients agree, for the weight and for the input, to the truncation."""
    weight, of = cell(0.7)
    x = torch.randn(3, SIZE, dtype=torch.float64, requires_grad=True)
    start, target = torch.zeros(3, SIZE, dtype=torch.float64), torch.randn(3, SIZE, dtype=torch.float64)
    gradients = []
    for found in (
        iterate(of(x), start, 120),
        implicit(of(x), start, 120, solve=SOLVERS[solver], terms=60),
    ):
        loss = (found.state - target).square().mean() / 10  # short enough for the guard
        gradients.append(torch.autograd.grad(loss, [weight, x]))
    for ours, reference in zip(*gradients, strict=True):
        assert float((ours - reference).norm()) < 1e-5 * float(reference.norm())


def test_the_series_of_no_terms_is_the_gradient_of_one_step() -> None:
    """K = 0 leaves out how the state came about."""
    weight, of = cell(0.7)
    x = torch.randn(2, SIZE, dtype=torch.float64)
    found = implicit(of(x), torch.zeros_like(x), 50, solve=neumann, terms=0)
    (ours,) = torch.autograd.grad(found.state.sum() / 1000, weight)
    one = of(x)(found.before.detach(), 0)
    (reference,) = torch.autograd.grad(one.sum() / 1000, weight)
    torch.testing.assert_close(ours, reference)


def test_the_guards_end_the_series_before_the_term_that_breaks_them() -> None:
    """An expanding Jacobian, a sum that becomes long and terms that vanish: the sum up to there is kept."""
    v = torch.ones(4, dtype=torch.float64) / 100
    grown, statistics = neumann(lambda vector: 1.1 * vector, v, 15)
    assert torch.equal(grown, v)
    assert (statistics.iterations, statistics.reason) == (1, "growth")
    long, statistics = neumann(lambda vector: 0.99 * vector, v / v.norm() * 0.4, 15)
    assert statistics.reason == "gradient norm"
    assert 0.7 < float(long.norm()) <= 1
    _, statistics = neumann(lambda vector: 1e-4 * vector, v, 15)
    assert statistics.reason == "vanished"
    assert statistics.iterations == 2
    broken, statistics = neumann(lambda vector: vector * math.nan, v, 15)
    assert statistics.reason == "diverged"
    assert torch.equal(broken, v)


def test_solvers_survive_a_product_that_is_not_finite() -> None:
    """They give back finite numbers and say what happened."""
    v = torch.ones(4, dtype=torch.float64)
    for solve in SOLVERS.values():
        solution, statistics = solve(lambda vector: vector * math.inf, v, 5)
        assert statistics.reason == "diverged"
        assert solution.isfinite().all()


def test_each_image_stops_when_it_has_converged() -> None:
    """A fast image stops early and stays where it was; the run ends with the slowest."""
    rates = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    found = iterate(lambda state, _: rates * state + 1, torch.zeros(2, 1, dtype=torch.float64), 500, tolerance=1e-6)
    assert found.statistics.reason == "converged"
    assert int(found.iterations[0]) < 10 < int(found.iterations[1]) < 150
    torch.testing.assert_close(found.state, 1 / (1 - rates), rtol=1e-4, atol=0)
    assert 0.85 < found.statistics.contraction < 0.95


def test_without_a_tolerance_every_step_is_done() -> None:
    """Also where nothing changes any more."""
    found = iterate(lambda state, _: state * 0, torch.ones(2, 1), 7)
    assert found.iterations.tolist() == [7, 7]
    assert found.statistics.reason == "steps"
    with pytest.raises(ValueError, match="need steps >= 1, got 0"):
        iterate(lambda state, _: state, torch.ones(1, 1), 0)


@pytest.mark.parametrize("rule", ["bptt", "rbp"])
def test_an_exploding_state_is_told_with_its_step(rule: str) -> None:
    """The state overflows at a step that the statistics name."""

    def step(state: Tensor, t: int) -> Tensor:
        return state * 1e10 if t < 5 else state

    start = torch.ones(2, 3, requires_grad=True)
    found = iterate(step, start, 9) if rule == "bptt" else implicit(step, start, 9, solve=neumann, terms=3)
    assert found.statistics.reason == "diverged"
    assert found.statistics.iterations == 2


def test_the_penalty_is_zero_below_its_threshold_and_positive_above() -> None:
    """Column sums of a linear map are known; only their excess counts, squared, by mean or by sum."""
    for scale, excess in ((0.5, 0.0), (0.9, 0.0), (1.1, 0.2)):
        before = torch.ones(2, 4, dtype=torch.float64, requires_grad=True)
        penalty, largest = lipschitz_penalty(before, before * scale, threshold=0.9, reduction="mean")
        assert float(penalty) == pytest.approx(excess**2, abs=1e-12)
        assert float(largest) == pytest.approx(scale)
    summed, _ = lipschitz_penalty(before, before * 1.1, threshold=0.9, reduction="sum")
    assert float(summed) == pytest.approx(8 * 0.2**2)


def test_following_the_penalty_makes_a_map_contract() -> None:
    """Its gradient reaches the weights, and descending it brings every column sum below the threshold."""
    weight = torch.nn.Parameter(torch.full((4, 4), 0.5, dtype=torch.float64))
    for _ in range(200):
        before = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
        penalty, largest = lipschitz_penalty(before, torch.tanh(before @ weight.T), threshold=0.9, reduction="sum")
        (gradient,) = torch.autograd.grad(penalty, weight)
        weight.data -= 0.02 * gradient
    assert float(largest) < 0.91


def test_memory_of_recurrent_back_propagation_does_not_depend_on_the_steps() -> None:
    """It keeps as much at 40 steps as at 6; back-propagation through time keeps in proportion."""
    _, of = cell(0.7)
    x = torch.randn(64, SIZE, dtype=torch.float64)
    start = torch.zeros_like(x)
    rbp = [saved_bytes(lambda t=t: implicit(of(x), start, t, solve=neumann, terms=15)) for t in (6, 40)]
    bptt = [saved_bytes(lambda t=t: iterate(of(x), start, t)) for t in (6, 40)]
    assert rbp[1] == rbp[0]
    assert bptt[1] > 5 * bptt[0]
    assert rbp[0] < bptt[0]
