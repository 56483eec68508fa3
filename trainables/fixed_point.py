"""Iterating a map towards its fixed point, and the gradients of what is found there.

The map is `step(state, t)` of a state, a tensor of any shape whose first axis is images, and of the number t of the
step (from 0, for maps that know it, such as those with statistics of their own for every step). Linsley, Karkada Ashok,
Govindarajan, Liu and Serre, "Stable and expressive recurrent vision models" (2020), sections 3 and 4: recurrent
back-propagation (RBP) differentiates the equation h = F(h) instead of the way to its solution, and its constrained form
(C-RBP) keeps F a contraction by a penalty. Every function returns what it found and how it went.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor

Step = Callable[[Tensor, int], Tensor]
Product = Callable[[Tensor], Tensor]
"""The product of a transposed Jacobian with a vector."""
Reason = Literal["steps", "converged", "diverged", "gradient norm", "growth", "vanished"]
"""Why an iteration ended: all was done, nothing changed any more, numbers ceased to be finite, or a guard said so."""


@final
@dataclass(frozen=True, slots=True)
class Statistics:
    """How an iteration went."""

    iterations: int
    """Applications of the map, or of its transposed Jacobian."""
    residual: float
    """The last change, or what is left of the equation, relative to the solution (Euclidean norms)."""
    contraction: float
    """The last change over the one before it, an estimate of the map's Lipschitz constant there; NaN: too few."""
    reason: Reason


@final
@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Where an iteration arrived."""

    state: Tensor
    """With the gradient of the rule that was used."""
    before: Tensor
    """The last step's argument, and ..."""
    after: Tensor
    """... its value, in the graph of that one step: what `lipschitz_penalty` takes."""
    iterations: Tensor
    """How many steps each image took, int64 `[n]`."""
    moving: Tensor
    """Which images had not come to rest, bool `[n]`: all of them without a tolerance."""
    statistics: Statistics
    solves: list[Statistics] = field(default_factory=list)
    """Of the backward solve: one more each time that gradients flow back. Empty under back-propagation in time."""


def iterate(step: Step, start: Tensor, steps: int, *, tolerance: float | None = None) -> FixedPoint:
    """Applies the map `steps` times, under autograd if it is on: back-propagation through time.

    Args:
        step: the map.
        start: the first state.
        steps: how often at most; at least 1.
        tolerance: an image whose relative change falls below it stays where it is, and the iteration ends once every
            image does; None: each step is done for all.

    Raises:
        ValueError: there are no steps.
    """
    if steps < 1:
        raise ValueError(f"need steps >= 1, got {steps}")
    before = after = start
    changes: list[Tensor] = []
    moving = torch.ones(len(start), dtype=torch.bool, device=start.device)
    iterations = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    for t in range(steps):
        before, after = after, step(after, t)
        iterations += moving
        if tolerance is not None:
            after = torch.where(moving.view(-1, *[1] * (start.dim() - 1)), after, before)
        with torch.no_grad():
            change = torch.linalg.vector_norm((after - before).flatten(1), dim=1)
            changes.append(torch.linalg.vector_norm(change))
            if tolerance is not None:
                moving = moving & ~(change <= tolerance * torch.linalg.vector_norm(after.flatten(1), dim=1))
                if not bool(moving.any()):
                    break
    with torch.no_grad():
        told = torch.stack([*changes[-2:], torch.linalg.vector_norm(after)]).tolist()
        reason: Reason = "steps" if tolerance is None or bool(moving.any()) else "converged"
        if not all(map(math.isfinite, told)):
            reason, broken = "diverged", int(torch.stack(changes).isfinite().int().sum()) + 1
            iterations.clamp_(max=broken)
    contraction = told[-2] / told[0] if len(told) == 3 and told[0] > 0 else math.nan
    residual = told[-2] / told[-1] if told[-1] > 0 else 0.0
    statistics = Statistics(int(iterations.max()), residual, contraction, reason)
    return FixedPoint(after, before, after, iterations, moving, statistics)


Solver = Callable[[Product, Tensor, int], tuple[Tensor, Statistics]]


def implicit(
    step: Step, start: Tensor, steps: int, *, solve: Solver, terms: int, tolerance: float | None = None
) -> FixedPoint:
    """Applies the map `steps` times, only the last of them under autograd: recurrent back-propagation.

    The gradient v at the state becomes the solution g of (I - J^T) g = v, J the Jacobian of the last step, and then
    goes once through that step (equations 4 to 6 of the paper). Memory does not depend on the number of steps.

    Args:
        step: the map.
        start: the first state.
        steps: as of `iterate`, the last one included.
        solve: `neumann` (the paper's), `anderson` or `gmres`.
        terms: the most products with J^T that it may take.
        tolerance: as of `iterate`.

    Raises:
        ValueError: there are no steps.
    """
    if steps < 1:
        raise ValueError(f"need steps >= 1, got {steps}")
    with torch.no_grad():
        run = iterate(step, start, steps - 1, tolerance=tolerance) if steps > 1 else None
    before = (start if run is None else run.state).detach().requires_grad_()
    last = iterate(lambda state, _: step(state, steps - 1), before, 1)
    solves: list[Statistics] = []
    state = last.after.view_as(last.after)  # a node of its own: the products below must not pass through the hook

    def solved(gradient: Tensor) -> Tensor:
        def product(vector: Tensor) -> Tensor:
            return torch.autograd.grad(last.after, before, vector, retain_graph=True)[0]

        solution, statistics = solve(product, gradient, terms)
        solves.append(statistics)
        return solution

    if state.requires_grad:
        state.register_hook(solved)  # type: ignore[no-untyped-call]  # torch's own
    iterations, statistics = last.iterations, last.statistics
    if run is not None:
        broken = "diverged" in (run.statistics.reason, statistics.reason)
        iterations = run.iterations + (0 if run.statistics.reason == "diverged" else 1)
        statistics = Statistics(
            iterations=int(iterations.max()),
            residual=statistics.residual,
            contraction=_contraction(run, last),
            reason="diverged" if broken else run.statistics.reason,
        )
    moving = last.moving if run is None else run.moving
    return FixedPoint(state, before, last.after, iterations, moving, statistics, solves)


def _contraction(run: FixedPoint, last: FixedPoint) -> float:
    with torch.no_grad():
        earlier = float(torch.linalg.vector_norm(run.after - run.before))
        later = float(torch.linalg.vector_norm(last.after - last.before))
    return later / earlier if earlier > 0 else math.nan


def neumann(
    product: Product, gradient: Tensor, terms: int, *, largest: float = 1.0, smallest: float = 1e-9
) -> tuple[Tensor, Statistics]:
    """V + J^T v + (J^T)^2 v + ... to the K-th power (equation 6), with the guards of the paper's code.

    A term is not added, and the sum ends before it, where the sum would become longer than `largest`, or the term is
    longer than the one before it (J expands), or shorter than `smallest`. For a contraction of norm r what is left out
    is at most r^(K + 1) / (1 - r) times the gradient's norm.
    """
    term, total = gradient, gradient
    length, contraction = float(torch.linalg.vector_norm(gradient)), math.nan
    reason: Reason = "steps"
    done = 0
    while done < terms:
        following = product(term)
        done += 1
        shrunk = float(torch.linalg.vector_norm(following))
        longer = total + following
        contraction = shrunk / length if length > 0 else math.nan
        if not math.isfinite(shrunk):
            reason = "diverged"
        elif shrunk > length:
            reason = "growth"
        elif shrunk < smallest:
            reason = "vanished"
        elif float(torch.linalg.vector_norm(longer)) > largest:
            reason = "gradient norm"
        if reason != "steps":
            break
        term, total, length = following, longer, shrunk
    return total, Statistics(done, _relative(length, total), contraction, reason)


def anderson(
    product: Product, gradient: Tensor, terms: int, *, memory: int = 5, tolerance: float = 1e-6
) -> tuple[Tensor, Statistics]:
    """Solves g = v + J^T g by Anderson acceleration: each guess is the best mixture of the last few.

    Walker and Ni, "Anderson acceleration for fixed-point iterations" (2011), in its form of differences. It ends at
    once if numbers cease to be finite, with the best guess so far.
    """
    guess = best = gradient
    guesses: list[Tensor] = []
    residuals: list[Tensor] = []
    lengths: list[float] = []
    reason: Reason = "steps"
    while len(lengths) < terms:
        residual = gradient + product(guess) - guess
        lengths.append(float(torch.linalg.vector_norm(residual)))
        if not math.isfinite(lengths[-1]):
            reason = "diverged"
            break
        if lengths[-1] <= min(lengths):
            best = guess
        if lengths[-1] <= tolerance * float(torch.linalg.vector_norm(guess)):
            reason = "converged"
            break
        guesses, residuals = [*guesses, guess][-memory - 1 :], [*residuals, residual][-memory - 1 :]
        guess = guess + residual
        if len(guesses) > 1:
            moved = torch.stack([(b - a).flatten() for a, b in itertools.pairwise(guesses)], dim=1)
            turned = torch.stack([(b - a).flatten() for a, b in itertools.pairwise(residuals)], dim=1)
            mixture = _least_squares(turned, residual.flatten())
            guess = guess - ((moved + turned) @ mixture).view_as(guess)
    if reason == "steps" and terms > 0:
        best = guess  # one step beyond the last that was measured
    return best, _solved(lengths, best, reason)


def gmres(product: Product, gradient: Tensor, terms: int, *, tolerance: float = 1e-6) -> tuple[Tensor, Statistics]:
    """Solves (I - J^T) g = v by GMRES without restarts: the mixture of the first K powers with the least residual.

    Saad and Schultz (1986). It keeps a vector a term, in memory too.
    """
    length = float(torch.linalg.vector_norm(gradient))
    if length == 0 or not math.isfinite(length):
        return gradient, Statistics(0, 0.0, math.nan, "vanished" if length == 0 else "diverged")
    basis = [gradient.flatten() / length]
    hessenberg = torch.zeros(terms + 1, terms, dtype=torch.float64)
    target = torch.zeros(terms + 1, dtype=torch.float64)
    target[0] = length
    solution, lengths = gradient, [length]
    reason: Reason = "steps"
    for k in range(terms):
        vector = basis[k] - product(basis[k].view_as(gradient)).flatten()
        for i, earlier in enumerate(basis):
            hessenberg[i, k] = float(earlier @ vector)
            vector = vector - hessenberg[i, k].item() * earlier
        left = float(torch.linalg.vector_norm(vector))
        if not math.isfinite(left):
            reason = "diverged"
            break
        hessenberg[k + 1, k] = left
        corner, wanted = hessenberg[: k + 2, : k + 1], target[: k + 2]
        weights = torch.linalg.lstsq(corner, wanted.unsqueeze(1)).solution[:, 0]
        solution = (torch.stack(basis, dim=1) @ weights.to(gradient)).view_as(gradient)
        lengths.append(float(torch.linalg.vector_norm(wanted - corner @ weights)))
        if lengths[-1] <= tolerance * length or left <= tolerance:
            reason = "converged"
            break
        basis.append(vector / left)
    return solution, _solved(lengths[1:], solution, reason)


SOLVERS: Mapping[str, Solver] = {"neumann": neumann, "anderson": anderson, "gmres": gmres}
Rule = Literal["bptt", "c_bptt", "rbp", "c_rbp"]
"""Back-propagation through time, or recurrent back-propagation; `c_`: with the Lipschitz coefficient penalty."""


def settled(
    rule: Rule, step: Step, start: Tensor, steps: int, *, solver: str, terms: int, tolerance: float | None = None
) -> FixedPoint:
    """Applies the map `steps` times, with the gradient that a rule of learning asks for.

    Args:
        rule: `iterate` or `implicit`.
        step: the map.
        start: the first state.
        steps: at least 1.
        solver: of `SOLVERS`, for `implicit`.
        terms: as of `implicit`.
        tolerance: as of `iterate`.
    """
    if rule in ("rbp", "c_rbp"):
        return implicit(step, start, steps, solve=SOLVERS[solver], terms=terms, tolerance=tolerance)
    if rule == "c_bptt":
        start = start.requires_grad_()  # of one step alone, it is what the penalty differentiates by
    return iterate(step, start, steps, tolerance=tolerance)


def told(found: FixedPoint) -> dict[str, Tensor]:
    """What to report of a training's iteration: `residual`, `steps`, and `contraction` where there is one."""
    went, steps = found.statistics, found.iterations.double().mean()
    numbers = {"residual": steps.new_tensor(went.residual), "steps": steps}
    return numbers if math.isnan(went.contraction) else numbers | {"contraction": steps.new_tensor(went.contraction)}


def lipschitz_penalty(
    before: Tensor, after: Tensor, *, threshold: float, reduction: Literal["mean", "sum"]
) -> tuple[Tensor, Tensor]:
    """The Lipschitz coefficient penalty: how far the column sums of the last step's Jacobian exceed a threshold.

    Equation 9: the sum or mean of max(0, 1^T J - threshold)^2, differentiable. It is zero where no column sum is above
    the threshold; below 1 the map is a contraction if J's entries are not negative.

    Args:
        before: the last step's argument, which requires a gradient.
        after: its value, in the graph of that step.
        threshold: lambda, below 1.
        reduction: over all elements of the state and all images.

    Returns:
        The penalty, and the largest column sum (detached).
    """
    (columns,) = torch.autograd.grad(after, before, torch.ones_like(after), create_graph=True)
    excess = (columns - threshold).clamp(min=0).square()
    return excess.mean() if reduction == "mean" else excess.sum(), columns.detach().amax()


def _least_squares(columns: Tensor, target: Tensor) -> Tensor:
    # By the normal equations in float64 with a small ridge: the columns become almost parallel near the solution.
    gram = (columns.T @ columns).double()
    gram += 1e-10 * gram.diagonal().amax() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solution: Tensor = torch.linalg.solve(gram, (columns.T @ target).double())
    return solution.to(columns.dtype)


def _relative(length: float, solution: Tensor) -> float:
    whole = float(torch.linalg.vector_norm(solution))
    return length / whole if whole > 0 else 0.0


def _solved(lengths: list[float], solution: Tensor, reason: Reason) -> Statistics:
    ratio = lengths[-1] / lengths[-2] if len(lengths) > 1 and lengths[-2] > 0 else math.nan
    return Statistics(len(lengths), _relative(lengths[-1], solution) if lengths else 0.0, ratio, reason)
