"""Panoptic FPN against published counts, and its parts against their definitions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.config import ConfigError
from trainables.cost import parameters
from trainables.data.scenes import Scenes
from trainables.family import Diverged
from trainables.models.panoptic_fpn.box_head import Detections, detect
from trainables.models.panoptic_fpn.boxes import clip, decode, encode, overlaps, suppress
from trainables.models.panoptic_fpn.config import PanopticFPNConfig
from trainables.models.panoptic_fpn.gala import GalaCell
from trainables.models.panoptic_fpn.matching import match, sample
from trainables.models.panoptic_fpn.merging import merged
from trainables.models.panoptic_fpn.network import PanopticFPN
from trainables.models.panoptic_fpn.proposals import anchors
from trainables.models.panoptic_fpn.roi_align import pasted, pooled, roi_align
from trainables.models.panoptic_fpn.truth import truth
from trainables.train_config import TrainConfig
from trainables.training import Training
from trainables.trial import TrialConfig

SMALL = {
    "backbone": "small",
    "channels": 8,
    "hidden": 16,
    "anchor": 4.0,
    "proposals": 20,
    "regions": 16,
    "things": 3,
    "stuff": 3,
    "steps": 3,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(**settings: Any) -> PanopticFPN:
    """A small network with the same weights each time."""
    torch.manual_seed(0)
    return PanopticFPNConfig.from_dict(SMALL | settings).build(input_shape=(3, 64, 64), outputs=2)


def batch() -> tuple[Tensor, Tensor]:
    """Two images with targets of a few things."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    targets = torch.full((2, 64, 64), 4000, dtype=torch.int32)
    targets[:, 8:30, 10:30], targets[0, 40:60, 20:50], targets[1, :4] = 1001, 3002, 0
    return images, targets


def boxes(count: int, seed: int = 0, side: float = 60) -> Tensor:
    """Random boxes, none of them empty."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * side
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 1], dim=1)


@pytest.mark.parametrize(
    ("backbone", "mask_head", "count"),
    [
        ("resnet50", "convolutions", 45_751_590),
        ("resnet50", "recurrent", 44_968_038),
        ("resnet101", "convolutions", 64_691_494),
        ("resnet101", "recurrent", 63_907_942),
    ],
)
def test_trained_parameters_are_those_of_the_paper(backbone: str, mask_head: str, count: int) -> None:
    """On COCO; batch norm is buffers, and the stem and the first stage keep their weights, as in Detectron2."""
    kind = {"backbone": backbone, "mask_head": mask_head, "normalization": "frozen_batch", "frozen": 2}
    with torch.device("meta"):
        model = PanopticFPNConfig.from_dict({**kind, "things": 80, "stuff": 53}).build(
            input_shape=(3, 480, 640), outputs=2
        )
    assert sum(one.numel() for one in model.parameters() if one.requires_grad) == count


def test_the_cell_and_its_norm_are_smaller_than_four_convolutions() -> None:
    """By the paper's difference of 783,552."""
    with torch.device("meta"):
        assert parameters(GalaCell(256)) + 2 * 256 == 1_576_768 == 2_360_320 - 783_552


def test_regions_are_read_as_the_definition_says() -> None:
    """Each cell is the mean of 2 x 2 bilinear samples, half a pixel aligned; beyond the border the border goes on."""
    maps, some = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(1)), boxes(5, side=6)
    some[0] = torch.tensor([0.0, 0.0, 7.0, 9.0])
    found = roi_align(maps, some, 3)
    for box in range(5):
        left, top, right, bottom = some[box].tolist()
        for row in range(3):
            for column in range(3):
                samples = [
                    _bilinear(
                        maps,
                        top + (row + (i + 0.5) / 2) * (bottom - top) / 3,
                        left + (column + (j + 0.5) / 2) * (right - left) / 3,
                    )
                    for i in range(2)
                    for j in range(2)
                ]
                torch.testing.assert_close(found[box, :, row, column], torch.stack(samples).mean(dim=0))


def _bilinear(maps: Tensor, y: float, x: float) -> Tensor:
    rows, columns = maps.shape[1:]
    y, x = min(max(y - 0.5, 0), rows - 1), min(max(x - 0.5, 0), columns - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    upper = (1 - x + left) * maps[:, top, left] + (x - left) * maps[:, top, right]
    lower = (1 - x + left) * maps[:, bottom, left] + (x - left) * maps[:, bottom, right]
    return (1 - y + top) * upper + (y - top) * lower


def test_larger_boxes_are_read_from_coarser_levels() -> None:
    """A side of 224 is for the third level, twice and half as much for its neighbours, in the order of the boxes."""
    pyramid = [torch.full((1, 1, 4, 4), float(level)) for level in range(4)]
    own = torch.tensor(
        [[0, 0, 448, 448], [0, 0, 10, 10], [0, 0, 224, 224], [0, 0, 112, 113], [0, 0, 4000, 4000]]
    ).float()
    found = pooled(pyramid, (4, 8, 16, 32), [own], 7)
    assert found[:, 0].mean(dim=(1, 2)).tolist() == [3, 0, 2, 1, 3]


def test_suppression_keeps_what_the_greedy_way_keeps() -> None:
    """One after the other, best first, each unless it meets a kept one; also with equal scores."""
    for seed in range(5):
        some = boxes(60, seed)
        scores = (torch.rand(60, generator=torch.Generator().manual_seed(seed)) * 20).round()
        kept, table = list[int](), overlaps(some, some)
        for one in scores.argsort(descending=True, stable=True).tolist():
            if not bool((table[one, kept] > 0.3).any()):
                kept.append(one)
        assert suppress(some, scores, 0.3).tolist() == kept
    assert suppress(boxes(0), torch.zeros(0), 0.3).tolist() == []


def test_boxes_come_back_from_their_code() -> None:
    """Deltas are the inverse of decoding; a box that is its reference has none; outside of the image is cut off."""
    some, references, weights = boxes(9, 0), boxes(9, 1), (10.0, 10.0, 5.0, 5.0)
    torch.testing.assert_close(decode(encode(some, references, weights), references, weights), some)
    assert encode(some, some, weights).abs().max() == 0
    assert clip(torch.tensor([[-3.0, 2.0, 50.0, 90.0]]), 40, 30).tolist() == [[0, 2, 30, 40]]


def test_anchors_have_the_area_and_the_shapes_that_they_should() -> None:
    """Three at each cell's corner, of 8 strides squared, twice as wide as high, square, and twice as high as wide."""
    own = anchors(2, 3, 4, 8.0, torch.device("cpu"))
    sides = own[:, 2:] - own[:, :2]
    torch.testing.assert_close(sides.prod(dim=1), torch.full((18,), 1024.0))
    torch.testing.assert_close((sides[:3, 1] / sides[:3, 0]), torch.tensor([0.5, 1.0, 2.0]))
    assert ((own[:, 2:] + own[:, :2]) / 2)[::3].tolist() == [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4]]


def test_each_object_is_matched_and_few_boxes_are_drawn() -> None:
    """Between the thresholds a box is neither; an object's best box is its own in any case; samples have shares."""
    table = torch.tensor([[0.8, 0.5, 0.1, 0.0], [0.1, 0.2, 0.25, 0.0]])
    objects, labels = match(table, 0.3, 0.7, each=False)
    assert (objects[:3].tolist(), labels.tolist()) == ([0, 0, 1], [1, -1, 0, 0])
    assert match(table, 0.3, 0.7, each=True)[1].tolist() == [1, -1, 1, 0]
    assert match(torch.zeros(0, 3), 0.3, 0.7, each=True)[1].tolist() == [0, 0, 0]
    things, ground = sample(torch.tensor([1] * 10 + [0] * 10 + [-1]), 8, 0.25)
    assert (len(things), len(ground)) == (2, 6)
    assert (int(things.max()) < 10, int(ground.min()) >= 10, int(ground.max()) < 20) == (True, True, True)


def test_detections_are_sure_and_one_a_thing() -> None:
    """Of two boxes on a thing the surer stays, unless they are of different classes; unsure ones go."""
    logits = torch.tensor([[5.0, 0, 0], [4.0, 0, 0], [0, 6.0, 0], [0, 0, 5.0]])
    proposals = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 10, 10], [20, 20, 30, 30]]).float()
    found = detect(logits, torch.zeros(4, 2, 4), proposals, (40, 40), 0.5, 9)
    assert found.classes.tolist() == [1, 0]
    assert found.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10]]


def test_surer_things_are_in_front_and_stuff_behind() -> None:
    """A thing that is mostly hidden goes, one that is hidden a little stays; little stuff goes."""
    stuff = torch.zeros(3, 10, 10)
    stuff[1] = 1
    stuff[2, 9, 9] = 2
    found = Detections(
        torch.tensor([[0, 0, 5, 10], [4, 0, 8, 10], [1, 0, 5, 10]]).float(),
        torch.tensor([0, 1, 1]),
        torch.tensor([0.9, 0.8, 0.7]),
    )
    category, instance = merged(found, torch.ones(3, 28, 28), stuff, 2, 0.02)
    assert category[0].tolist() == [0] * 5 + [1] * 3 + [2] * 2
    assert instance[0].tolist() == [1] * 5 + [2] * 3 + [0] * 2
    assert category[9, 9] == -1


def test_masks_fill_their_boxes() -> None:
    """A mask of ones covers the pixels whose middles are in the box; an empty box covers none."""
    covered = pasted(torch.ones(28, 28), torch.tensor([2.0, 1.0, 6.0, 3.0]), 5, 8) >= 0.5
    expected = torch.zeros(5, 8, dtype=torch.bool)
    expected[1:3, 2:6] = True
    assert torch.equal(covered, expected)
    assert pasted(torch.ones(28, 28), torch.tensor([2.0, 1.0, 2.0, 3.0]), 5, 8).sum() == 0


def test_heads_learn_what_the_map_says() -> None:
    """Boxes around things that are told apart; labels of stuff, of things as such, and none of unlabelled pixels."""
    target = torch.full((6, 8), 5000, dtype=torch.int32)
    target[1:3, 2:7], target[4, 4], target[5], target[0] = 2003, 1001, 2000, 0
    found = truth(target, 3)
    assert found.classes.tolist() == [0, 1]
    assert found.boxes.tolist() == [[4, 4, 5, 5], [2, 1, 7, 3]]
    assert [int(mask.sum()) for mask in found.masks] == [1, 10]
    assert [found.labels[row, 3].item() for row in (0, 1, 3, 5)] == [255, 0, 2, 0]
    assert truth(torch.full((6, 8), 5000), 3).boxes.shape == (0, 4)


def test_images_without_things_teach_the_rest() -> None:
    """Nothing is covered, and nothing is divided by zero, also where nobody has labelled anything."""
    images, targets = batch()
    config = PanopticFPNConfig.from_dict(SMALL)
    for nothing in (torch.full_like(targets, 4000), torch.zeros_like(targets)):
        learned = config.training_loss(
            build(), images, nothing, task=Scenes(train=1).task, train=TrainConfig(), progress=0.0
        )
        assert learned.loss.isfinite()
        assert "penalty" not in learned.metrics


@pytest.mark.parametrize("rule", ["bptt", "c_rbp"])
def test_the_penalty_and_the_weight_of_stuff_are_in_the_loss(rule: str) -> None:
    """The loss is the sum of what is reported."""
    config = PanopticFPNConfig.from_dict(SMALL | {"rule": rule, "penalty": {"weight": 0.5}, "semantic_weight": 0.25})
    images, targets = batch()
    learned = config.training_loss(
        build(), images, targets, task=Scenes(train=1).task, train=TrainConfig(), progress=0.0
    )
    weights = {"semantic": 0.25, "penalty": 0.5} | dict.fromkeys(
        ("objectness", "proposals", "classes", "boxes", "masks"), 1.0
    )
    expected = sum(weight * float(learned.metrics.get(name, 0.0)) for name, weight in weights.items())
    assert float(learned.loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert ("penalty" in learned.metrics) == (rule == "c_rbp")
    assert config.penalty.threshold == 0.95


def test_a_loss_that_is_not_finite_is_a_divergence() -> None:
    """The trial ends, and says why."""
    model = build()
    torch.nn.init.constant_(model.semantic.predictor.weight, math.nan)
    with pytest.raises(Diverged, match="the loss is not finite"):
        PanopticFPNConfig.from_dict(SMALL).training_loss(
            model, *batch(), task=Scenes(train=1).task, train=TrainConfig(), progress=0.0
        )


def test_a_broken_network_still_answers() -> None:
    """It finds no box where its numbers are none: a diverged training is measured once more."""
    model = build().eval()
    for parameter in model.proposals.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    assert model(torch.zeros(2, 3, 64, 64))[:, 1].max() == 0


def test_more_steps_change_the_masks_alone() -> None:
    """A model runs on beyond the steps of training; images are answered alike alone and together, of any size."""
    model = build(confidence=0.2, detections=5).eval()
    images = torch.randn(2, 3, 70, 65, generator=torch.Generator().manual_seed(3))
    found = model(images)
    assert found.shape == (2, 2, 70, 65)
    torch.testing.assert_close(found, model(images, steps=3))
    torch.testing.assert_close(torch.cat([model(images[:1]), model(images[1:])]), found)
    regions = torch.randn(2, 8, 14, 14)
    cell = model.masks.cell
    assert cell is not None
    step, state = cell.step(regions), cell.start(regions)
    states = [state := step(state, t) for t in range(4)]
    assert not torch.equal(states[2], states[3])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_graph_of_the_network_is_refused() -> None:
    """Another image has other boxes: what was recorded for one would be wrong for it, and engines leave it alone."""
    with pytest.raises(RuntimeError, match="what is computed depends on what is seen"):
        torch.jit.trace(build().eval(), torch.zeros(1, 3, 64, 64), check_trace=False)


def test_categories_are_those_of_the_data() -> None:
    """Unless the config says others, which is a fault."""
    values: dict[str, Any] = {"family": "panoptic_fpn", "data": {"name": "scenes"}}
    model = TrialConfig.from_dict(values).model
    assert isinstance(model, PanopticFPNConfig)
    assert (model.things, model.stuff) == (3, 3)
    with pytest.raises(ConfigError, match=r"model\.stuff: need 3, as many as the data have, got 4"):
        TrialConfig.from_dict({**values, "model": {"stuff": 4}})


def test_images_that_are_too_small_are_refused() -> None:
    """Coarse levels need a few pixels."""
    with pytest.raises(ValueError, match="need images of at least 33 x 33"):
        PanopticFPNConfig.from_dict(SMALL).build(input_shape=(3, 32, 64), outputs=2)


def test_training_makes_its_losses_smaller(tmp_path: Path) -> None:
    """By the real loop: every head's loss is reported, a split is measured, and the whole loss falls."""
    values: dict[str, Any] = {
        "family": "panoptic_fpn",
        "model": {name: value for name, value in SMALL.items() if name not in ("things", "stuff")},
        "train": {"batch_size": 4, "learning_rate": 3e-3, "max_iterations": 6, "validate_every": 3},
        "data": {"name": "scenes", "train": 12, "validation": 1, "test": 1},
    }
    trial = TrialConfig.from_dict(values)
    training = Training(trial, trial.data.load(tmp_path), device=torch.device("cpu"))
    history = []
    while training.finished is None:
        history.append(training.advance())
    assert history[-1]["train/loss"] < history[0]["train/loss"]
    assert {"train/masks", "train/semantic", "train/penalty", "validation/pq", "backward/terms"} <= set(history[-1])
    assert 0 <= history[-1]["test/pq"] <= 1
