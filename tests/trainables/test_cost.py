"""What models cost and what they are made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trainables.convolutions import Convolution, bfloat16_is_safe, channels_last_is_safe
from trainables.cost import forward_seconds, gpu_utilization, parameters, survey
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.precision import uses_bfloat16

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


class Rows(nn.Module):
    """A layer over the rows of an image, as a recurrent one takes them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> object:
        """Of images `[n, 1, rows, columns]`."""
        return self.layer(x[:, 0])


@pytest.mark.parametrize(
    ("model", "input_shape", "count"),
    [
        (nn.Conv2d(3, 4, 3, padding=1, bias=False), (3, 5, 7), 5 * 7 * 4 * 3 * 9),
        (nn.Conv2d(4, 8, 3, stride=2, groups=2), (4, 7, 7), 3 * 3 * 8 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5), 25 * 4 * 6 * 4),
        (nn.Linear(7, 3), (2, 5, 7), 10 * 7 * 3),
        (Rows(nn.LSTM(7, 16, num_layers=2, bidirectional=True, batch_first=True)), (1, 5, 7), 5 * 128 * (23 + 48)),
        (Rows(nn.GRU(7, 16, batch_first=True)), (1, 5, 7), 5 * 3 * 16 * (7 + 16)),
        (Rows(nn.RNN(7, 16, batch_first=True)), (1, 5, 7), 5 * 16 * (7 + 16)),
    ],
    ids=["convolution", "grouped", "transposed", "linear", "lstm", "gru", "rnn"],
)
def test_multiply_adds_by_hand(model: nn.Module, input_shape: tuple[int, int, int], count: int) -> None:
    """Outputs times the weights that each of them meets; biases and activations are not counted."""
    assert survey(model, input_shape).multiply_adds == count


def test_surveying_changes_nothing() -> None:
    """The model stays in training mode and its batch norms do not see the example."""
    model = NarrowResNetConfig(channels=(2, 4, 4, 4)).build(input_shape=(1, 32, 32), outputs=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    survey(model, (1, 32, 32))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert parameters(model) == sum(value.numel() for value in model.parameters())


def test_convolutions_are_noted() -> None:
    """Each with the size of what it sees, its channels, kernel and stride."""
    model = nn.Sequential(nn.Conv2d(1, 4, (3, 5), stride=(1, 2), padding=(1, 2)), nn.Conv2d(4, 2, 1))
    first, second = survey(model, (1, 6, 8)).convolutions
    assert first == Convolution(rows=6, columns=8, in_channels=1, kernel=(3, 5), stride=(1, 2))
    assert second == Convolution(rows=6, columns=4, in_channels=4, kernel=(1, 1), stride=(1, 1))


def test_faulty_layouts_are_told() -> None:
    """A strided 1x1 convolution of fewer than 16 channels must not be run channels-last."""
    few = survey(nn.Conv2d(8, 16, 1, stride=2), (8, 10, 10)).convolutions
    enough = survey(nn.Conv2d(16, 16, 1, stride=2), (16, 10, 10)).convolutions
    assert not channels_last_is_safe(few)
    assert channels_last_is_safe(enough)


def test_faulty_bfloat16_is_told() -> None:
    """Images narrower than a stride must not be trained on in bfloat16."""
    convolution = nn.Conv2d(16, 16, 3, stride=2, padding=1)
    narrow, wide = (survey(convolution, (16, 4, columns)).convolutions for columns in (1, 2))
    assert not bfloat16_is_safe(narrow)
    assert bfloat16_is_safe(wide)
    assert not uses_bfloat16("auto", CPU, narrow)
    assert not uses_bfloat16("float32", CPU, wide)
    assert uses_bfloat16("bfloat16", CPU, wide)
    with pytest.raises(ValueError, match="need auto, float32 or larger images"):
        uses_bfloat16("bfloat16", CPU, narrow)


@pytest.mark.parametrize("channels", [(2, 4, 4, 4), (8, 16, 16, 16), (16, 32, 32, 32)])
def test_narrow_resnets_keep_clear_of_the_faults(channels: tuple[int, int, int, int]) -> None:
    """However narrow, from 17 pixels on."""
    model = NarrowResNetConfig(channels=channels).build(input_shape=(1, 17, 17), outputs=1)
    convolutions = survey(model, (1, 17, 17)).convolutions
    assert len(convolutions) == 20
    assert channels_last_is_safe(convolutions)
    assert bfloat16_is_safe(convolutions)


MEASURING = """
import torch
from trainables.cost import peak_memory, reset_peak_memory

cpu = torch.device("cpu")
reset_peak_memory(cpu)
before = peak_memory(cpu)
torch.ones(64 * 2**20, dtype=torch.uint8)
came = peak_memory(cpu) - before
reset_peak_memory(cpu)
print(came, peak_memory(cpu) - before)
"""


def test_peak_memory_counts_from_the_reset() -> None:
    """A block that came and went is counted, until the next reset.

    In a process of its own: one that trained keeps freed memory, and then a block never goes.
    """
    done = subprocess.run([sys.executable, "-c", MEASURING], cwd=ROOT, capture_output=True, text=True, check=True)
    came, stayed = map(int, done.stdout.split())
    assert came >= 60 * 2**20
    assert stayed < 60 * 2**20


def test_nobody_knows_how_busy_a_missing_gpu_is() -> None:
    """On the CPU, and where NVML does not answer, utilisation is left out."""
    assert gpu_utilization(torch.device("cpu")) is None
    if not torch.cuda.is_available():
        assert gpu_utilization(torch.device("cuda")) is None


def test_a_forward_pass_is_timed_as_the_model_is_served() -> None:
    """A few passes in evaluation mode; the model's mode and its running statistics stay as they were."""
    modes = []
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    before = model[0].running_mean.clone()
    assert 0 < forward_seconds(model, torch.ones(1, 1, 4, 4)) < 1
    assert not any(modes)
    assert len(modes) > 1
    assert model.training
    assert torch.equal(before, model[0].running_mean)
