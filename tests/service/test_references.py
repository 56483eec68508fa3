"""What a spec may refer to: other sweeps, trials, models and files, found and checked when it is submitted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from service.adapters.manual_clock import ManualClock
from service.adapters.memory_store import MemoryStore
from service.domain import Measurement, Sweep, Trial, TrialState
from service.errors import InvalidSpec
from service.references import referenced_weights
from service.spec import SweepSpec
from service.submission import Submissions
from trainables.models.narrow_resnet import NarrowResNetConfig

AT = datetime(2026, 1, 1, tzinfo=UTC)
SPEC: dict[str, Any] = {
    "name": "second",
    "family": "narrow_resnet",
    "data": {"name": "digits", "image_size": 16},
    "space": {"train.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}},
}
CHANNELS = (2, 4, 4, 4)


class World:
    """A store with one sweep before: trial 0 completed at 0.7, trial 1 at 0.9 (version 1), trial 2 still running."""

    def __init__(self, folder: Path) -> None:
        self.store, self.folder = MemoryStore(), folder
        self.submissions = Submissions(store=self.store, clock=ManualClock(), weights_root=folder / "weights")
        spec = {**SPEC, "objectives": [{"metric": "validation/accuracy", "mode": "max"}]}
        self.store.add_sweep(Sweep(id="first", name="easy", spec=spec, created_at=AT))
        for number, value in enumerate((0.7, 0.9, None)):
            trial = Trial(id=f"first-{number:04}", sweep_id="first", number=number, point={}, created_at=AT)
            self.store.add_trial(trial)
            checkpoint = folder / trial.id / "checkpoint-000003"
            self.write(checkpoint / "model" / "model.safetensors")
            measurement = Measurement(trial_id=trial.id, step=3, at=AT, metrics={})
            self.store.add_measurement(measurement, checkpoint=str(checkpoint))
            if value is not None:
                self.store.move_trial(trial.id, TrialState.COMPLETED, at=AT, values=(value,))
        for number in (0, 1):
            self.store.add_model_version(
                name="easy", sweep_id="first", trial_id=f"first-{number:04}", value=0.7, path="anywhere", at=AT
            )

    def write(self, path: Path, channels: tuple[int, int, int, int] = CHANNELS) -> None:
        """A network's weights."""
        path.parent.mkdir(parents=True, exist_ok=True)
        module = NarrowResNetConfig(channels=channels).build(input_shape=(1, 16, 16), outputs=10)
        save_file(module.state_dict(), path)

    def submit(self, **fixed: Any) -> SweepSpec:
        """The spec that is kept, of one with these settings."""
        names = {name.replace("__", "."): value for name, value in fixed.items()}
        spec = {**SPEC, "fixed": {"model.channels": list(CHANNELS), **names}}
        return SweepSpec.from_dict(self.submissions.create(spec).spec)


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("reference", "pinned"),
    [
        ("sweep:first", "trial:first-0001"),
        ("trial:first-0000", "trial:first-0000"),
        ("model:easy", "trial:first-0001"),
        ("model:easy/1", "trial:first-0000"),
    ],
)
def test_a_reference_is_pinned_to_the_trial_it_means(world: World, reference: str, pinned: str) -> None:
    """A sweep means its best trial, a model its champion; the driver finds that trial's kept weights."""
    spec = world.submit(train__initial_weights=reference)
    assert spec.fixed["train.initial_weights"] == pinned
    (place,) = referenced_weights(spec, world.store).values()
    assert place == str(world.folder / pinned.removeprefix("trial:") / "checkpoint-000003" / "model")


def test_references_may_be_searched(world: World) -> None:
    """Each choice is pinned, also in points to try first, and what is searched only beside one of them stays so."""
    space = {
        "train.initial_weights": {"kind": "choice", "values": [None, "sweep:first"]},
        "train.weight_decay": {
            "kind": "float",
            "low": 0.0,
            "high": 1.0,
            "when": {"train.initial_weights": "sweep:first"},
        },
    }
    first = {"train.initial_weights": "sweep:first", "train.weight_decay": 0.5}
    search = {"enqueue": [first, {"train.initial_weights": None}]}
    spec = {**SPEC, "fixed": {"model.channels": list(CHANNELS)}, "space": space, "search": search}
    sweep = world.submissions.create(spec)
    assert [point["train.initial_weights"] for point in sweep.spec["search"]["enqueue"]] == ["trial:first-0001", None]
    assert sweep.spec["space"]["train.initial_weights"]["values"] == [None, "trial:first-0001"]
    assert sweep.spec["space"]["train.weight_decay"]["when"] == {"train.initial_weights": "trial:first-0001"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("sweep:nothing", "nothing"),
        ("trial:first-0009", "first-0009"),
        ("trial:first-0002", "still running"),
        ("model:hard", "hard"),
        ("model:easy/3", "no version 3: its versions are 1 to 2"),
        ("weights.safetensors", "no such saved model"),
    ],
)
def test_a_reference_to_nothing_is_found_at_submission(world: World, reference: str, message: str) -> None:
    """The fault is at the setting and says what is missing."""
    with pytest.raises(InvalidSpec) as caught:
        world.submit(train__initial_weights=reference)
    (fault,) = caught.value.faults
    assert fault.pointer == "/fixed/train.initial_weights"
    assert message in fault.message


def test_a_reference_to_nothing_has_each_of_its_places(world: World) -> None:
    """Among the choices and in points to try first."""
    space = {"train.initial_weights": {"kind": "choice", "values": [None, "sweep:nothing"]}}
    search = {"enqueue": [{"train.initial_weights": None}, {"train.initial_weights": "sweep:nothing"}]}
    with pytest.raises(InvalidSpec) as caught:
        world.submissions.create({**SPEC, "space": space, "search": search})
    assert [fault.pointer for fault in caught.value.faults] == [
        "/space/train.initial_weights/values/1",
        "/search/enqueue/1/train.initial_weights",
    ]


@pytest.mark.parametrize("reference", ["sweep:first", "weights.safetensors"])
def test_weights_that_do_not_fit_are_found_at_submission(world: World, reference: str) -> None:
    """Tensor by tensor, for weights of sweeps and in files."""
    world.write(world.folder / "weights" / "weights.safetensors")
    assert world.submit(train__initial_weights=reference)
    with pytest.raises(InvalidSpec) as caught:
        world.submit(train__initial_weights=reference, model__channels=[2, 4, 4, 8])
    (fault,) = caught.value.faults
    assert fault.pointer == "/fixed/train.initial_weights"
    assert "blocks.6.body.0.weight is [4, 4, 3, 3], need [8, 4, 3, 3]" in fault.message


def test_unknown_modules_are_found_at_submission(world: World) -> None:
    """`learning_rates` may name modules of the network only; the fault says which is near."""
    assert world.submit(train__learning_rates={"head": 0.1})
    with pytest.raises(InvalidSpec) as caught:
        world.submit(train__learning_rates={"haed": 0.1})
    (fault,) = caught.value.faults
    assert fault.pointer == "/fixed/train.learning_rates/haed"
    assert "did you mean 'head'?" in fault.message


def test_what_is_gone_when_the_driver_starts_is_left_out(world: World) -> None:
    """Then each trial fails with the reason, and resumed ones do not need it."""
    spec = world.submit(train__initial_weights="sweep:first")
    assert referenced_weights(spec, MemoryStore()) == {}


def test_networks_are_checked_without_their_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is built on the meta device."""
    devices = []
    build: Callable[..., torch.nn.Module] = NarrowResNetConfig.build

    def noted(*arguments: Any, **named: Any) -> torch.nn.Module:
        module = build(*arguments, **named)
        devices.append(next(module.parameters()).device.type)
        return module

    monkeypatch.setattr(NarrowResNetConfig, "build", noted)
    world.submit()
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("fixed", "values"),
    [
        ({"model.depth": 1, "model.layer": "fc"}, {"model.hidden_size": range(1, 102)}),
        (
            {"model.layer": "rnn", "model.full_recurrent": True, "model.recurrent_layers": 10},
            {"model.depth": [98, 99, 100]},
        ),
    ],
    ids=["many", "large"],
)
def test_more_networks_than_can_be_tried_at_once_are_refused(
    world: World, fixed: dict[str, Any], values: dict[str, Iterable[int]]
) -> None:
    """Too many of them, or a few that are very deep; with fewer, the spec is taken. Their training does not count."""
    training = {"train.seed": {"kind": "int", "low": 0, "high": 9}}

    def submit(most: int | None) -> Sweep:
        space = {name: {"kind": "choice", "values": list(of)[:most]} for name, of in values.items()}
        return world.submissions.create(
            {**SPEC, "family": "spatial_rnn", "fixed": fixed, "space": {**space, **training}}
        )

    with pytest.raises(InvalidSpec) as caught:
        submit(None)
    (fault,) = caught.value.faults
    assert fault.pointer == "/space"
    assert fault.message.startswith("need at most 100 networks of 20000 modules and weights in all")
    assert submit(1)


def test_the_largest_spaces_are_checked_while_a_client_waits(world: World) -> None:
    """Choices and conditions as long as they may be take seconds (2 s when this was written), not minutes."""
    sizes = list(range(1, 481))
    space = {
        "train.batch_size": {"kind": "choice", "values": sizes},
        "train.seed": {"kind": "choice", "values": [1, 2], "when": {"train.batch_size": sizes}},
    }
    began = time.process_time()
    world.submissions.create({**SPEC, "space": space})
    assert time.process_time() - began < 20


def test_weights_that_were_removed_cannot_be_started_from(world: World) -> None:
    """The fault says why they are gone; a sweep that names them already keeps them."""
    trial = Trial(id="first-0003", sweep_id="first", number=3, point={}, created_at=AT)
    world.store.add_trial(trial)
    world.store.add_measurement(Measurement(trial_id=trial.id, step=1, at=AT, metrics={}), checkpoint="/gone")
    world.store.move_trial(trial.id, TrialState.PRUNED, at=AT)
    assert world.store.forget_checkpoint(trial.id)
    with pytest.raises(InvalidSpec) as caught:
        world.submit(train__initial_weights="trial:first-0003")
    assert str(caught.value) == (
        "fixed.train.initial_weights: refers to nothing: the weights of trial first-0003 were removed: "
        "it is none of its sweep's best (resources.keep_best)"
    )
    world.submit(train__initial_weights="trial:first-0000")
    assert not world.store.forget_checkpoint("first-0000")
