"""Perceptrons and a LeNet-like network in which one fully connected layer is swapped for a four-directional RNN.

O. Vila Clarà, "The effect of spatial RNNs on neural network feature maps", chapter 4. Its 1MLP, 2MLP, 3MLP, ... are
`network: mlp` with `depth` 1, 2, 3, ...; its CNN is `network: cnn` with `depth: 2`. Each has a recurrent version
(`layer: rnn`, `gru` or `lstm`) and a fully connected one (`layer: fc`).
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import nn

from trainables.config import setting
from trainables.cost import parameters
from trainables.family import FamilyConfig
from trainables.four_directional_rnn import BidirectionalRNN, FourDirectionalRNN, InitialState, Recurrence, Unit

MOST_UNITS = 65_536
"""Of a layer, at most: a hundred times the thesis's."""
KERNEL = 5
CHANNELS = (6, 16)
"""Of LeNet-5's two convolutions (LeCun et al. 1998)."""


@final
@dataclass(frozen=True, slots=True)
class ParameterMatch:
    """How many parameters the two versions of a network have."""

    recurrent: int
    fully_connected: int

    @property
    def difference(self) -> int:
        """How many more the fully connected version has: what whole numbers of units leave over."""
        return self.fully_connected - self.recurrent


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialRNNConfig(FamilyConfig):
    """Hidden layers, one of them recurrent, and a read-out: on the image (`mlp`) or on convolutions of it (`cnn`)."""

    network: Literal["mlp", "cnn"] = setting(
        "mlp", help="mlp: the hidden layers read the image; cnn: they read LeNet's two convolutions with max pooling"
    )
    depth: int = setting(
        2, at_least=0, at_most=100, help="hidden layers, the recurrent one among them; 1 with mlp is 1MLP"
    )
    layer: Literal["fc", "rnn", "gru", "lstm"] = setting(
        "lstm", help="what the layer under study is: fully connected, or a four-directional RNN of these units"
    )
    position: int | None = setting(
        None, at_least=1, help="which hidden layer that is; 1: it reads the map itself; none: the last"
    )
    hidden_size: int = setting(16, at_least=1, at_most=MOST_UNITS, help="units of each of the four directions")
    reshape: tuple[int, int] = setting(
        (32, 32),
        at_least=1,
        at_most=4096,
        help="rows and columns of what the recurrent layer reads where a vector comes before it",
    )
    width: int = setting(
        1024,
        at_least=1,
        at_most=MOST_UNITS,
        help="units of a fully connected hidden layer that nothing else determines",
    )
    recurrent_layers: int = setting(1, at_least=1, at_most=10, help="recurrent layers stacked in place of the one")
    full_sequence: bool = setting(
        False, help="the next layer reads the hidden states of all steps; else of the last step of each direction"
    )
    full_recurrent: bool = setting(
        False, help="every layer is recurrent, the read-out too: it is bidirectional, its last states are the outputs"
    )
    initial_state: InitialState = setting(
        "zeros", help="hidden states that sequences start from; normal: drawn anew for each while training"
    )
    match_parameters: Unit | None = setting(
        "lstm",
        help="the first layer of the fully connected version gets the width with which it has as many parameters as "
        "the version with this layer, or nearly; none: the layer under study has as many outputs as the recurrent one",
    )
    parameter_budget: int | None = setting(
        None,
        at_least=1,
        at_most=10**15,
        help="the first free width, of either version, becomes that closest to so many parameters",
    )

    def rules(self) -> Iterator[tuple[str, str]]:
        """The layer under study exists, and a budget has a width to determine."""
        if self.depth == 0 and not self.full_recurrent:
            yield "depth", "need a hidden layer unless full_recurrent is true, got 0"
        elif self.position is not None and self.position > self.depth:
            yield "position", f"need one of the {self.depth} hidden layers, got {self.position}"
        if self.full_recurrent and self.layer == "fc":
            yield "full_recurrent", "need layer rnn, gru or lstm, got 'fc'"
        if self.parameter_budget is not None and self._free is None:
            yield (
                "parameter_budget",
                f"need a fully connected hidden layer whose width is free; of {self.depth} hidden layers, "
                f"number {self._studied} is recurrent and `reshape` determines the one before it",
            )

    def build(self, *, input_shape: tuple[int, int, int], outputs: int) -> nn.Sequential:
        """The network; its modules are `convolutions`, `fc1`, `fc2`, ..., `rnn` (or `rnn1`, ... if all are) and `head`.

        Raises:
            ValueError: a cnn's image is smaller than 16 x 16, or a full_recurrent network is to have an odd number of
                outputs.
        """
        return self._build(input_shape, outputs, self._width(input_shape, outputs))

    def parameter_match(self, *, input_shape: tuple[int, int, int], outputs: int) -> ParameterMatch:
        """The parameters of this network and of its other version.

        The recurrent version's units are those of `layer`; of a fully connected network, those of `match_parameters`
        (lstm if none).

        Raises:
            ValueError: as `build`; or there is no other version, because all layers are recurrent.
        """
        if self.full_recurrent:
            raise ValueError("need full_recurrent false: a network of recurrent layers only has no other version")
        unit = self.layer if self.layer != "fc" else self.match_parameters or "lstm"
        matched = None if self.match_parameters is None else unit
        versions = (dataclasses.replace(self, layer=layer, match_parameters=matched) for layer in (unit, "fc"))
        return ParameterMatch(*(version._parameters(input_shape, outputs) for version in versions))

    @property
    def _studied(self) -> int:
        """The number of the layer under study."""
        return self.depth if self.position is None else self.position

    @property
    def _free(self) -> int | None:
        """The number of the first hidden layer whose width a number of parameters may determine."""
        taken = () if self.layer == "fc" else (self._studied - 1, self._studied)
        free = (number for number in range(1, self.depth + 1) if number not in taken and not self.full_recurrent)
        return next(free, None)

    def _parameters(self, input_shape: tuple[int, int, int], outputs: int) -> int:
        """How many the built network has."""
        return self._count(input_shape, outputs, self._width(input_shape, outputs))

    def _count(self, input_shape: tuple[int, int, int], outputs: int, width: int | None) -> int:
        with torch.device("meta"):  # neither memory nor random numbers
            return parameters(self._build(input_shape, outputs, width))

    def _width(self, input_shape: tuple[int, int, int], outputs: int) -> int | None:
        """The width of the first free layer that a number of parameters asks for; None: none does."""
        if self.parameter_budget is not None:
            target = self.parameter_budget
        elif self.layer == "fc" and self.match_parameters is not None:
            target = dataclasses.replace(self, layer=self.match_parameters)._parameters(input_shape, outputs)
        else:
            return None
        one, two = (self._count(input_shape, outputs, width) for width in (1, 2))
        return max(1, 1 + round((target - one) / (two - one)))  # each unit more costs the same

    def _build(self, input_shape: tuple[int, int, int], outputs: int, free_width: int | None) -> nn.Sequential:
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        shape = input_shape
        if self.network == "cnn":
            modules["convolutions"], shape = _convolutions(input_shape)
        recurrence = self._recurrence
        for number in range(1, self.depth + 1):
            if self.full_recurrent or (number == self._studied and self.layer != "fc"):
                modules[f"rnn{number}" if self.full_recurrent else "rnn"] = FourDirectionalRNN(shape, recurrence)
                shape = (1, *recurrence.kept(*shape[1:]))
                continue
            reads = math.prod(shape)
            if number == self._free and free_width is not None:
                shape = (1, 1, free_width)
            elif number == self._studied:
                shape = (1, *recurrence.kept(*(shape[1:] if number == 1 else self.reshape)))
            elif number == self._studied - 1:
                shape = (1, *self.reshape)
            else:
                shape = (1, 1, self.width)
            modules[f"fc{number}"] = nn.Sequential(nn.Flatten(), nn.Linear(reads, math.prod(shape)), nn.ReLU())
        if self.full_recurrent:
            if outputs % 2:
                raise ValueError(
                    f"full_recurrent: need an even number of outputs, half of each direction; got {outputs}"
                )
            last = dataclasses.replace(recurrence, hidden_size=outputs // 2, full_sequence=False)
            modules["head"] = nn.Sequential(BidirectionalRNN(shape, last), nn.Flatten())
        else:
            modules["head"] = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs))
        return nn.Sequential(modules)

    @property
    def _recurrence(self) -> Recurrence:
        """What the recurrent version's layer is; a fully connected one has its outputs, which all units share."""
        return Recurrence(
            unit="lstm" if self.layer == "fc" else self.layer,
            hidden_size=self.hidden_size,
            layers=self.recurrent_layers,
            full_sequence=self.full_sequence,
            initial_state=self.initial_state,
        )


def _convolutions(input_shape: tuple[int, int, int]) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """LeNet's convolutions with max pooling, and the shape of the map that they make."""
    channels, *sides = input_shape
    layers: list[nn.Module] = []
    for made in CHANNELS:
        layers += [nn.Conv2d(channels, made, KERNEL), nn.ReLU(), nn.MaxPool2d(2)]
        channels, sides = made, [(side - KERNEL + 1) // 2 for side in sides]
    if min(sides) < 1:
        raise ValueError(f"network: a cnn needs images of at least 16 x 16, got {input_shape[1]} x {input_shape[2]}")
    return nn.Sequential(*layers), (channels, sides[0], sides[1])
