"""The contour networks: their published sizes, their Gabor filters, and what they give at any number of steps."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.kept_memory import saved_bytes
from trainables.cost import parameters, survey
from trainables.family import Diverged, TrainingLoss
from trainables.models.contour_rnn.circuit import Circuit
from trainables.models.contour_rnn.config import ContourRNNConfig
from trainables.models.contour_rnn.gabor import gabor_bank
from trainables.models.contour_rnn.horizontal import HorizontalKernel, gate_bias
from trainables.models.contour_rnn.network import ContourRNN
from trainables.tasks import Classification, Segmentation
from trainables.train_config import TrainConfig
from trainables.training import Training
from trainables.trial import TrialConfig

SMALL = {"channels": 4, "kernel": 5, "steps": 4}
NETWORKS = ["hgru", "softplus_hgru", "conv_lstm", "feed_forward", "hcnn", "td_hcnn"]


@pytest.mark.parametrize(
    ("expected", "settings", "outputs"),
    [
        (143_510, {"network": "hgru"}, 2),
        (144_210, {"network": "hgru", "normalization": "per_step"}, 2),
        (284_227, {"network": "softplus_hgru", "kernel": 15, "readout": "pixels"}, 2),
        (104_227, {"network": "softplus_hgru", "kernel": 9, "readout": "pixels"}, 2),
        (34_227, {"network": "softplus_hgru", "kernel": 5, "readout": "pixels"}, 2),
        (14_227, {"network": "softplus_hgru", "kernel": 3, "readout": "pixels"}, 2),
        (1_126_452, {"network": "conv_lstm", "readout": "pixels"}, 2),
        (845_527, {"network": "feed_forward", "readout": "pixels"}, 2),
        (717_350, {"network": "td_hcnn"}, 1),
        (202_469, {"network": "hcnn"}, 1),
    ],
)
def test_parameter_counts_are_the_published_ones(expected: int, settings: dict[str, Any], outputs: int) -> None:
    """Each network has as many parameters as the public code of its paper, allocated and unused ones included."""
    model = ContourRNNConfig.from_dict(settings).build(input_shape=(1, 150, 150), outputs=outputs)
    assert expected == parameters(model)


def small(readout: str = "image", outputs: int = 2, **settings: Any) -> ContourRNN:
    """A small network, in eval mode after a training batch has given it statistics."""
    torch.manual_seed(0)
    values = {**SMALL, "readout": readout, "tower": (4, 6), **settings}
    model = ContourRNNConfig.from_dict(values).build(input_shape=(1, 20, 22), outputs=outputs)
    with torch.no_grad():
        model(torch.randn(8, 1, 20, 22))
    return model.eval()


def test_the_gabor_bank_is_the_published_one() -> None:
    """Unit lengths, zero sums but for the disc (which sums to 49), the first twelve symmetric about their middle."""
    bank = gabor_bank(25, 1)[:, 0].double()
    assert bank.shape == (25, 7, 7)
    torch.testing.assert_close(bank[:24].flatten(1).norm(dim=1), torch.ones(24, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(bank.sum(dim=(1, 2)), torch.tensor([0.0] * 24 + [49.0]).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(bank[:12], bank[:12].flip(1, 2), rtol=0, atol=1e-7)
    assert float((bank[12:24] - bank[12:24].flip(1, 2)).abs().amax(dim=(1, 2)).min()) > 0.01
    assert int((bank[24] > 0).sum()) == 29


@pytest.mark.parametrize("readout", ["image", "pixels"])
@pytest.mark.parametrize("network", NETWORKS)
def test_an_answer_evolves_step_by_step_to_that_of_forward(network: str, readout: str) -> None:
    """Read-outs of any step have the answer's shape, and the last is what `forward` gives; also beyond training."""
    model = small(readout, network=network)
    images = torch.randn(2, 1, 20, 22)
    with torch.inference_mode():
        for steps in (None, 2, 9):
            evolution = list(model.evolution(images, steps))
            answer = model(images, steps)
            assert answer.shape == ((2, 2) if readout == "image" else (2, 2, 20, 22))
            assert len(evolution) == (steps or model.steps)
            torch.testing.assert_close(evolution[-1], answer)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_image_is_answered_whatever_is_beside_it(network: str) -> None:
    """With running statistics, alone as in a batch."""
    model = small(network=network)
    images = torch.randn(3, 1, 20, 22)
    with torch.inference_mode():
        torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=1e-4, atol=1e-5)


def test_statistics_of_the_batch_are_there_for_comparison() -> None:
    """As in the public code: what else is in the batch changes an answer, in tests too."""
    model = small("pixels", statistics="batch")
    images = torch.randn(3, 1, 20, 22)
    with torch.inference_mode():
        assert not torch.allclose(model(images)[:1], model(images[:1]), atol=1e-4)


@pytest.mark.parametrize(("symmetry", "used_are"), [("kernel", True), ("gradient", False), ("none", False)])
def test_horizontal_kernels_are_as_symmetric_as_asked(symmetry: str, used_are: bool) -> None:
    """Kept by kernel they are symmetric before and after a step; by gradient only the change is."""
    torch.manual_seed(0)
    kernel = HorizontalKernel(torch.randn(3, 3, 5, 5), symmetry=symmetry, form="direct")  # type: ignore[arg-type]
    used = kernel.effective()
    assert used_are == torch.allclose(used, used.transpose(0, 1))
    if symmetry != "kernel":
        assert torch.equal(used, kernel.weight)
    maps = torch.randn(2, 3, 9, 9)
    kernel.over(maps)(maps).square().sum().backward()
    gradient = kernel.weight.grad
    assert gradient is not None
    assert torch.allclose(gradient, gradient.transpose(0, 1), rtol=1e-4, atol=1e-3) == (symmetry != "none")
    torch.optim.Adam(kernel.parameters(), lr=0.01).step()
    after = kernel.effective()
    assert used_are == torch.allclose(after, after.transpose(0, 1))


@pytest.mark.parametrize("steps", [3, 8, 80])
def test_gates_start_with_the_logarithm_that_the_public_code_lost(steps: int) -> None:
    """Log U(1, T - 1) is at most the log of T - 1; the public code has U(1, 7) at any number of steps."""
    chronos, uniform = gate_bias(1000, steps, "chronos"), gate_bias(1000, steps, "uniform")
    assert 0 <= float(chronos.min()) <= 0.9 * math.log(steps - 1) <= float(chronos.max()) < math.log(steps - 1) + 1e-6
    assert 1 <= float(uniform.min()) < 1.5 < 6.5 < float(uniform.max()) <= 7


@pytest.mark.parametrize(("rectified", "spread"), [(False, (2 / 401) ** 0.5), (True, 1.0)])
def test_a_circuit_starts_as_spread_as_the_published_ones(rectified: bool, spread: float) -> None:
    """Vectors count as kernels from one channel to c: Xavier in 2018, by what comes in alone in 2020.

    Of 2,000 numbers a standard deviation is known to 1.4 % (one sigma); they are cut off at 2 / 0.88 of it.
    """
    torch.manual_seed(0)
    circuit = Circuit(
        400,
        1,
        4,
        rectified=rectified,
        one_kernel=False,
        normalization="none",
        statistics="running",
        symmetry="none",
        bias="chronos",
        form="direct",
    )
    with torch.no_grad():
        vectors = torch.cat([circuit.alpha, circuit.mu, circuit.gamma, circuit.kappa, circuit.omega])
        assert float(vectors.std()) == pytest.approx(spread, rel=0.06)
        assert float(vectors.abs().max()) <= 2 / 0.8796 * spread
        for weights in (*circuit.gates, *circuit.kernels.parameters()):
            assert float(weights.std()) == pytest.approx(400**-0.5, rel=0.02)


@pytest.mark.parametrize("tolerance", [None, 0.05])
@pytest.mark.parametrize("rule", ["bptt", "c_bptt", "rbp", "c_rbp"])
def test_every_rule_tells_how_the_dynamics_went(rule: str, tolerance: float | None) -> None:
    """Residual and steps always, the penalty where it is taken, the backward solve where there is one."""
    config = ContourRNNConfig.from_dict({**SMALL, "rule": rule, "tolerance": tolerance, "penalty": {"threshold": -9.0}})
    model = config.build(input_shape=(1, 16, 16), outputs=1)
    learned = teach(config, model, torch.randn(4, 1, 16, 16))
    learned.loss.backward()
    assert {"residual", "steps", "contraction"} <= learned.metrics.keys()
    assert ("penalty" in learned.metrics) == rule.startswith("c_")
    if rule.startswith("c_"):
        assert float(learned.metrics["penalty"]) > 0
    told = config.inspect(model, train=TrainConfig(), progress=0.0)
    assert ("backward/terms" in told) == rule.endswith("rbp")


def teach(config: ContourRNNConfig, model: ContourRNN, images: Tensor) -> TrainingLoss:
    """A batch, to a classification task of two classes."""
    task, targets = Classification(classes=("a", "b")), torch.arange(len(images)) % 2
    return config.training_loss(model, images, targets, task=task, train=TrainConfig(), progress=0.0)


def kept_for_the_backward_pass(rule: str, steps: int) -> int:
    """Bytes of all that autograd keeps of a training step."""
    config = ContourRNNConfig.from_dict({**SMALL, "steps": steps, "rule": rule, "readout": "pixels"})
    model = config.build(input_shape=(1, 32, 32), outputs=2)
    images, targets = torch.randn(4, 1, 32, 32), torch.zeros(4, 32, 32, dtype=torch.uint8)
    return saved_bytes(
        lambda: config.training_loss(model, images, targets, task=Segmentation(), train=TrainConfig(), progress=0.0)
    )


@pytest.mark.parametrize("rule", ["rbp", "c_rbp"])
def test_memory_does_not_grow_with_the_steps(rule: str) -> None:
    """C-RBP keeps as much for 40 steps as for 6, to 5 %; back-propagation through time over five times as much."""
    few, many = (kept_for_the_backward_pass(rule, steps) for steps in (6, 40))
    assert abs(many - few) <= 0.05 * few
    few, many = (kept_for_the_backward_pass("bptt", steps) for steps in (6, 40))
    assert many > 5 * few


def test_a_circuit_that_explodes_or_does_not_rest_says_so() -> None:
    """The step of the circuit, and which rule was broken by how much."""
    config = ContourRNNConfig.from_dict({**SMALL, "rule": "rbp", "largest_residual": 1e-6})
    model = config.build(input_shape=(1, 16, 16), outputs=1)
    with pytest.raises(Diverged, match=r"step 4 of the circuit still changes the state by .* <= 1e-06"):
        teach(config, model, torch.randn(4, 1, 16, 16))
    with pytest.raises(Diverged, match="the state is not finite after 1 of 4 steps"):
        teach(config, model, torch.full((4, 1, 16, 16), 1e30))


def test_a_trial_that_diverges_ends_with_its_reason(tmp_path: Path) -> None:
    """No exception leaves the training: its loss is NaN, and it has finished, as it says why."""
    trial = TrialConfig.from_dict(
        {
            "family": "contour_rnn",
            "model": {**SMALL, "rule": "c_rbp", "largest_residual": 1e-6},
            "train": {"batch_size": 4, "precision": "float32"},
            "data": {"name": "digits", "image_size": 8, "train": 8, "validation": 2, "test": 2},
        }
    )
    training = Training(trial, trial.data.load(tmp_path), device=torch.device("cpu"))
    metrics = training.advance()
    assert math.isnan(metrics["train/loss"])
    assert training.diverged
    assert training.finished is not None
    assert re.match(r"diverged: step 4 of the circuit still .* \(iteration 1\)", training.finished)


def test_what_a_model_costs_does_not_depend_on_the_form_of_its_convolutions() -> None:
    """Multiply-adds are those of direct convolutions: T steps of two 15x15 kernels are most of them."""
    counted = []
    for form in ("direct", "fourier"):
        config = ContourRNNConfig.from_dict({"convolution": form, "steps": 2})
        counted.append(survey(config.build(input_shape=(1, 30, 30), outputs=1), (1, 30, 30)).multiply_adds)
    assert counted[0] == counted[1]
    large = 2 * 2 * 30 * 30 * 15 * 15 * 25 * 25
    assert large < counted[0] < 1.02 * large


def test_what_cannot_be_built_is_told() -> None:
    """Even kernels, fixed points of networks without recurrence, images too small for two levels."""
    for settings, message in (
        ({"kernel": 4}, "kernel: need an odd number, got 4"),
        ({"network": "feed_forward", "rule": "rbp"}, "rule: need bptt for the network feed_forward, got 'rbp'"),
        ({"network": "conv_lstm", "normalization": "none"}, "normalization: need none given for the network conv_lstm"),
    ):
        with pytest.raises(ValueError, match=message):
            ContourRNNConfig.from_dict(settings)
    with pytest.raises(ValueError, match="td_hcnn needs images of at least 8 x 8"):
        ContourRNNConfig(network="td_hcnn").build(input_shape=(1, 7, 7), outputs=1)


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0.1}, "need no tolerance, got 0.1"),
        ({"convolution": "fourier"}, "need the form direct"),
    ],
)
def test_what_is_no_fixed_graph_is_not_traced(settings: dict[str, Any], message: str) -> None:
    """So that no engine serves a graph whose number of steps was that of one image."""
    model = small(**settings)
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        torch.jit.trace(model, torch.zeros(2, 1, 20, 22))
