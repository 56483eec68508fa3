"""What every ready-made study promises: a legal spec, a network at every corner, and a small copy that runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from search_spaces import studies, study
from service.adapters.manual_clock import ManualClock
from service.adapters.memory_store import MemoryStore
from service.disk import Disk
from service.domain import Sweep, SweepState, Trial, TrialState
from service.driver.recorder import Recorder
from service.driver.run import Run
from service.spec import SweepSpec
from trainables import checkpoint
from trainables.outline import outline
from trainables.trainable import Report
from trainables.training import Training
from trainables.trial import TrialConfig


@pytest.fixture(name="data_root", scope="module")
def _data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


SCALED = [name for name in studies() if name != "quickstart"]
"""That one is for small machines as it is."""
MOST_IMAGES = 100_000
"""Seen by all trials of a study that is run here; other scales are for minutes on a small machine."""


def _images_seen(name: str) -> int:
    spec = SweepSpec.from_dict(study(name, small=True))
    trial = spec.trial(spec.space.corners()[0])
    return spec.search.trials * spec.search.repeats * trial.steps * trial.data.train


@pytest.mark.parametrize(
    ("name", "small"), [*((name, False) for name in studies()), *((name, True) for name in SCALED)]
)
def test_every_corner_of_a_study_has_a_network_for_its_images(name: str, small: bool) -> None:
    """Networks that cannot take a study's images would fail only once it runs; here they take no memory."""
    spec = SweepSpec.from_dict(study(name, small=small))
    assert spec.name == name
    assert list(spec.inner_faults()) == []
    for corner in spec.space.corners():
        assert any(parameter.requires_grad for parameter in outline(spec.trial(corner)).parameters())


CONTOUR_STUDIES = [name for name in studies() if study(name)["family"] == "contour_rnn"]
MOST_UNROLLED = 20
"""Steps whose activations a large GPU can hold, at batches of 128 images of 150 x 150."""


@pytest.mark.parametrize("name", CONTOUR_STUDIES)
def test_contour_networks_learn_from_what_the_published_ones_did(name: str) -> None:
    """Pixels from 0 to 1; C-RBP's from images resized cubically, by horizontal kernels that nothing ties."""
    spec = SweepSpec.from_dict(study(name))
    for corner in spec.space.corners():
        trial = spec.trial(corner)
        assert trial.data.preprocessing.mean == (0.0,)
        assert trial.data.preprocessing.std == (1.0,)
        model = trial.model.to_dict()
        assert (model["readout"] == "pixels") == (trial.data.preprocessing.interpolation == "cubic")
        assert model["network"] != "softplus_hgru" or model["symmetry"] == "none"


@pytest.mark.parametrize("name", CONTOUR_STUDIES)
def test_no_study_goes_back_through_more_steps_than_fit_in_memory(name: str) -> None:
    """Only rules whose memory does not grow with the steps take many; the trials are these points and no more."""
    spec = SweepSpec.from_dict(study(name))
    points = list(spec.search.enqueue) or list(spec.space.grid())
    assert spec.search.trials == len(points)
    for point in points:
        model = spec.trial(point).model.to_dict()
        assert model["rule"].endswith("rbp") or model["steps"] <= MOST_UNROLLED


def test_figure_5_ranks_width_by_accuracy_and_parameters() -> None:
    """What so many parameters buy, as a Pareto front."""
    spec = SweepSpec.from_dict(study("narrow-resnet-figure-5"))
    assert list(spec.space) == ["model.width"]
    assert [one.metric for one in spec.objectives] == ["validation/accuracy", "model/parameters"]


@pytest.mark.parametrize(
    "name",
    [name for name in SCALED if _images_seen(name) <= MOST_IMAGES],
)
def test_a_study_runs_at_its_scale(name: str, tmp_path: Path, data_root: Path) -> None:
    """Its search is asked, every trial trained and told, without a cluster: all complete, each tested once at its end.

    What the networks learn at this scale says nothing, so only this is asserted: every number is one, accuracies are
    shares, losses are positive, and each trial has as many steps as its budget or its patience let it have.
    """
    spec = SweepSpec.from_dict(study(name, small=True))
    trials, trained = _sweep(spec, tmp_path, data_root)
    asked = spec.search.trials * spec.search.repeats
    assert [trial.state for trial in trials] == [TrialState.COMPLETED] * asked
    assert len(trained) == asked
    for training in trained:
        assert training.finished is not None
        assert len(training.history) == training.step
        for step, metrics in training.history.items():
            assert all(math.isfinite(value) for value in metrics.values())
            assert ("test/loss" in metrics) == (step == training.step)
            assert all(0 <= value <= 1 for key, value in metrics.items() if key.endswith("/accuracy"))
            assert all(value > 0 for key, value in metrics.items() if key.endswith("/loss"))


RELEASED = {"train": 360_000, "validation": 40_000, "test": 80_000}
"""Pathfinder images of one path length, as the nRN18's authors split them."""
FEW = {"train": 54_000, "validation": 6_000, "test": 80_000}
"""As many to learn from as Kim et al. 2020 took."""


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *((f"narrow-resnet-{name}", RELEASED) for name in ("figure-2", "figure-3", "figure-4", "table-1", "table-2")),
        *((f"narrow-resnet-{name}", FEW) for name in ("figure-5", "table-3", "table-3-td-hcnn")),
    ],
)
def test_pathfinder_is_split_as_published(name: str, sizes: dict[str, int]) -> None:
    """Accuracies are of as many images as the papers'."""
    data = SweepSpec.from_dict(study(name)).data
    assert {split: data[split] for split in sizes} == sizes


@pytest.mark.parametrize("name", ["figure-6-cabc", "figure-6-easy-cabc", "figure-6-pretrained-cabc"])
def test_batches_are_larger_with_all_images_of_cluttered_abc(name: str) -> None:
    """512 images with all 144,000, and 196 with fewer (Lüddecke and Ecker, footnote 3)."""
    spec = SweepSpec.from_dict(study(f"narrow-resnet-{name}"))
    trials = [spec.trial(point) for point in spec.space.grid()]
    assert {(trial.data.train == 144_000, trial.train.batch_size) for trial in trials} == {(False, 196), (True, 512)}


@pytest.mark.parametrize("name", ["figure-3", "figure-4", "table-1", "table-2", "table-3"])
def test_shared_and_relaxed_networks_are_compared_after_their_last_epoch(name: str) -> None:
    """Relaxed ones can be no others, so that the best epoch of those without would be an advantage."""
    spec = SweepSpec.from_dict(study(f"shared-resnet-{name}"))
    assert {spec.trial(point).train.keep for point in spec.space.grid()} == {"last"}


def _sweep(spec: SweepSpec, folder: Path, data_root: Path) -> tuple[list[Trial], list[Training]]:
    """The sweep's trials, one after another in this process, as its driver and its workers would run them."""
    store, clock = MemoryStore(), ManualClock()
    store.add_sweep(Sweep(id="s", name=spec.name, spec=spec.to_dict(), created_at=clock.now()))
    sweep = store.move_sweep("s", SweepState.RUNNING, at=clock.now())
    recorder = Recorder(store, clock)
    run = Run(
        sweep,
        spec,
        trials=[],
        measurements=[],
        folder=folder,
        data_root=data_root,
        weights_root=folder,
        referenced_weights={},
        recorder=recorder,
        clock=clock,
        disk=Disk(folder, "0"),
    )
    trained: dict[str, Training] = {}
    looks = 0
    while (settings := run.start()) != "never":
        if isinstance(settings, str):
            looks += 1
            assert looks < 60, "the population neither ends nor goes on"
            continue
        trial = TrialConfig.from_dict(settings["trial"])
        training = trained[settings["trial_id"]] = Training(
            trial, trial.data.load(data_root), device=torch.device("cpu"), initial_weights=_weights(trial, folder)
        )
        if settings["checkpoint"] is not None:  # of a population, whose trials wait for each other
            training.restore(checkpoint.read(Path(settings["checkpoint"])))
        ends = False
        while not ends:
            training.advance()
            path = checkpoint.write(Path(settings["folder"]), training) if spec.search.pbt is not None else folder
            ends = run.report(settings["trial_id"], _report(training, path))
    recorder.close()
    return store.trials("s"), list(trained.values())


def _report(training: Training, folder: Path) -> Report:
    values: dict[str, Any] = {
        "step": training.step,
        "metrics": training.metrics,
        "checkpoint": str(folder),
        "best_step": training.best_step,
        "best_metrics": training.best_metrics,
        "finished": training.finished,
        "diverged": training.diverged,
    }
    return Report(**values)  # type: ignore[typeddict-item]


def _weights(trial: TrialConfig, folder: Path) -> Path | None:
    """Where a trial starts that names other weights: at random ones, in place of another study's."""
    if trial.train.initial_weights is None:
        return None
    preprocessing, task = trial.data.preprocessing, trial.data.task
    network = trial.model.build(input_shape=preprocessing.input_shape, outputs=task.outputs)
    path = folder / "other.safetensors"
    save_file(network.state_dict(), path)
    return path
