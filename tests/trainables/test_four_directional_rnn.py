"""The four-directional RNN against cells stepped one row at a time, and against published counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.cost import parameters
from trainables.four_directional_rnn import UNITS, BidirectionalRNN, FourDirectionalRNN, Recurrence, Unit

MAP = (3, 5, 7)
HIDDEN = 4
State = tuple[Tensor, Tensor]


def rnn(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    """Elman's unit."""
    w, u, b, c = weights
    return (w @ x + b + u @ state[0] + c).tanh(), state[1]


def gru(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    """Reset and update gates; the reset gate is applied after the product."""
    w, u, b, c = weights
    (rx, zx, nx), (rh, zh, nh) = (w @ x + b).chunk(3), (u @ state[0] + c).chunk(3)
    update = (zx + zh).sigmoid()
    return (1 - update) * (nx + (rx + rh).sigmoid() * nh).tanh() + update * state[0], state[1]


def lstm(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    """Input, forget and output gates round a cell."""
    w, u, b, c = weights
    i, f, g, o = (w @ x + b + u @ state[0] + c).chunk(4)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


CELLS: dict[Unit, Callable[[Tensor, State, Sequence[Tensor]], State]] = {"rnn": rnn, "gru": gru, "lstm": lstm}


def swept(unit: Unit, module: nn.Module, steps: Sequence[Tensor], layers: int) -> tuple[Tensor, Tensor]:
    """States `[t, 2 * hidden]` at each step, and the last of each direction `[2, hidden]`, of one bidirectional RNN."""
    last: list[Tensor] = []
    for layer in range(layers):
        names = [f"{kind}_l{layer}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        directions = []
        for suffix, order in (("", range(len(steps))), ("_reverse", reversed(range(len(steps))))):
            weights = [module.get_parameter(name + suffix) for name in names]
            state = (torch.zeros(HIDDEN, dtype=torch.float64),) * 2
            states = {}
            for place in order:
                state = CELLS[unit](steps[place], state, weights)
                states[place] = state[0]
            directions.append(torch.stack([states[place] for place in range(len(steps))]))
            last.append(state[0])
        steps = list(torch.cat(directions, dim=1))
    return torch.stack(steps), torch.stack(last[-2:])


def layer_of(**recurrence: Any) -> FourDirectionalRNN:
    """A layer in double precision with random weights."""
    torch.manual_seed(0)
    return FourDirectionalRNN(MAP, Recurrence(hidden_size=HIDDEN, **recurrence)).double()


@pytest.mark.parametrize("full_sequence", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("unit", UNITS)
def test_sweeps_are_those_of_plain_cells(unit: Unit, layers: int, full_sequence: bool) -> None:
    """Each direction reads whole rows or columns, one at a time; what is kept, and in which order, is as documented."""
    layer = layer_of(unit=unit, layers=layers, full_sequence=full_sequence)
    maps = torch.randn(2, *MAP, dtype=torch.float64)
    expected = []
    for one in maps:
        rows = [one[:, place, :].reshape(-1) for place in range(MAP[1])]
        columns = [one[:, :, place].reshape(-1) for place in range(MAP[2])]
        vertical, vertical_last = swept(unit, layer.rows.unit, rows, layers)
        horizontal, horizontal_last = swept(unit, layer.columns.unit, columns, layers)
        kept = [vertical, horizontal] if full_sequence else [vertical_last, horizontal_last]
        expected.append(torch.cat(kept))
    shape = (MAP[1] + MAP[2], 2 * HIDDEN) if full_sequence else (4, HIDDEN)
    assert layer.rows.recurrence.kept(*MAP[1:]) == shape
    assert layer(maps).shape == (2, *shape)
    torch.testing.assert_close(layer(maps), torch.stack(expected), atol=1e-10, rtol=0)


def test_an_upward_sweep_ends_at_the_first_row() -> None:
    """What the last step of each direction has read most recently changes it most; all of them read the whole map."""
    layer = layer_of(unit="rnn").eval()
    maps = torch.randn(1, *MAP, dtype=torch.float64, requires_grad=True)
    strength = []
    for direction in range(4):
        (gradient,) = torch.autograd.grad(layer(maps)[0, direction].sum(), maps)
        strength.append(gradient[0].abs().sum(dim=(0, 2 if direction < 2 else 1)))
    down, up, right, left = strength
    assert all(bool((each > 0).all()) for each in strength)
    assert down[-1] > down[0]
    assert right[-1] > right[0]
    assert up[0] > up[-1]
    assert left[0] > left[-1]


def test_a_vector_is_read_as_a_map() -> None:
    """Row by row, the layout of `Tensor.reshape`; channels-last memory changes nothing."""
    layer = layer_of()
    maps = torch.randn(2, *MAP, dtype=torch.float64)
    torch.testing.assert_close(layer(maps.flatten(1)), layer(maps))
    torch.testing.assert_close(layer(maps.contiguous(memory_format=torch.channels_last)), layer(maps))


@pytest.mark.parametrize("unit", UNITS)
def test_random_initial_states_are_for_training(unit: Unit) -> None:
    """They differ from pass to pass, repeat with torch's seed, and give way to zeros when evaluating."""
    layer, zeros = layer_of(unit=unit, initial_state="normal"), layer_of(unit=unit)
    maps = torch.randn(2, *MAP, dtype=torch.float64)
    torch.manual_seed(1)
    first, second = layer(maps), layer(maps)
    torch.manual_seed(1)
    assert torch.equal(layer(maps), first)
    assert not torch.allclose(second, first)
    assert not torch.allclose(first[0], layer(maps[:1])[0])
    assert torch.equal(layer.eval()(maps), zeros.eval()(maps))


def test_the_published_counts_of_pose_regression() -> None:
    """Its head over a vector of 2,048 reshaped to 32 x 64: 3,359,751 parameters with what stands before and after."""
    sweep = FourDirectionalRNN((1, 32, 64), Recurrence(hidden_size=256))
    before, position, orientation = nn.Linear(1024, 2048), nn.Linear(4 * 256, 3), nn.Linear(4 * 256, 4)
    assert sum(map(parameters, (before, sweep, position, orientation))) == 3_359_751


def test_a_bidirectional_layer_sweeps_rows_only() -> None:
    """It is the vertical half of the four directions."""
    layer = layer_of()
    maps = torch.randn(2, *MAP, dtype=torch.float64)
    half = BidirectionalRNN(MAP, Recurrence(hidden_size=HIDDEN)).double()
    half.load_state_dict(layer.rows.state_dict())
    assert torch.equal(half(maps), layer(maps)[:, :2])
