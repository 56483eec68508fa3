"""Sweeps are made of specs, studies and other sweeps, once for each idempotency key."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from search_spaces import study
from service import submission
from service.adapters.manual_clock import ManualClock
from service.adapters.memory_launcher import MemoryLauncher
from service.adapters.memory_store import MemoryStore
from service.domain import Sweep, SweepState
from service.errors import Conflict, InvalidSpec, KeyReused, NotFound
from service.port_values import Claim
from service.spec import SweepSpec
from tests.service.sweep_world import DyingStore

SPEC = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}, "search": {"trials": 5}}


class World:
    """A store, a cluster and a clock."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store, self.cluster, self.clock = store or MemoryStore(), MemoryLauncher(), ManualClock()
        self._ids = count(1)

    def submit(self, key: str | None = None, document: Any = None, **changes: Any) -> Sweep:
        """A sweep, a second after the one before."""
        self.clock.advance(1)
        return self._submissions().create(SPEC | changes if document is None else document, key=key)

    def clone(self, sweep: Sweep, changes: Any, key: str | None = None) -> Sweep:
        """A sweep with another one's spec."""
        return self._submissions().clone(sweep.id, changes, key=key)

    def _submissions(self) -> submission.Submissions:
        return submission.Submissions(
            store=self.store,
            clock=self.clock,
            weights_root=Path("weights"),
            cluster=self.cluster,
            new_id=lambda: f"sweep{next(self._ids)}",
        )


@pytest.fixture
def world() -> World:
    """An empty world."""
    return World()


def test_a_created_sweep_is_queued_with_its_whole_spec(world: World) -> None:
    """Every default is filled in, so that later defaults do not change what was asked for."""
    sweep = world.submit()
    assert (sweep.state, sweep.name, sweep.last_event) == (SweepState.QUEUED, "digits", 1)
    assert sweep.spec["stop"]["pruner"] == "asha"
    assert world.store.sweeps() == [sweep]


def test_a_bad_spec_creates_nothing(world: World) -> None:
    """It is refused with its faults, and its key stays free."""
    with pytest.raises(InvalidSpec, match="family"):
        world.submit("key", family="narrow_resnets")
    assert world.store.sweeps() == []
    assert world.submit("key").name == "digits"


def test_ids_are_short_and_differ() -> None:
    """Eight characters that are legal in any path, URL and job name."""
    ids = {submission.new_sweep_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 8 and one.isalnum() and one == one.lower() for one in ids)


# studies


def test_a_study_is_submitted_by_its_name(world: World) -> None:
    """As packaged, or as its `scale` cuts it down."""
    assert world.submit(document={"study": "quickstart"}).spec["search"]["trials"] == 16
    for name in ("spatial-rnn-table-4-1", "spatial-rnn-table-4-3"):
        for scaled in (False, True):
            spec = SweepSpec.from_dict(study(name, small=scaled)).to_dict()
            assert world.submit(document={"study": name, "scaled": scaled}).spec == spec


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"study": "quikstart"}, "study: unknown study 'quikstart'; did you mean 'quickstart'?"),
        ({"study": ["quickstart"]}, "study: unknown study ['quickstart']"),
        ({"study": "quickstart", "scaled": "no"}, "scaled: need true or false, got 'no'"),
        ({"study": "quickstart", "scaled": True}, "scaled: need a `scale`, a mapping of what is smaller"),
        ({"study": "quickstart", "seed": 1}, "seed: unknown key 'seed'"),
    ],
)
def test_a_study_that_is_not_there_is_a_fault(world: World, document: Any, fault: str) -> None:
    """With the nearest name."""
    with pytest.raises(InvalidSpec) as caught:
        world.submit(document=document)
    assert fault in str(caught.value)


# clusters


def test_a_request_that_no_node_can_meet_is_refused(world: World) -> None:
    """With what the cluster has; nothing is queued."""
    world.cluster.cluster = [{"CPU": 4}, {"CPU": 4}, {"CPU": 8, "GPU": 2}]
    with pytest.raises(InvalidSpec) as caught:
        world.submit(resources={"cpus": 1, "gpus": 4})
    assert str(caught.value) == (
        "resources: a trial needs 4 GPU; the largest node has 2; "
        "the cluster has 2 nodes with 4 CPU and 0 GPU, 1 node with 8 CPU and 2 GPU"
    )
    assert world.store.sweeps() == []
    world.submit(resources={"cpus": 8, "gpus": 0.5})


def test_a_cluster_that_cannot_tell_refuses_nothing(world: World) -> None:
    """One that is down or has not started its nodes: the sweep's driver will look again."""
    world.cluster.cluster = []
    world.submit(resources={"gpus": 4})
    world.cluster.down = True
    world.submit(resources={"gpus": 4})
    assert len(world.store.sweeps()) == 2


# clones


def test_a_clone_has_the_spec_with_the_changes(world: World) -> None:
    """A merge patch: mappings go into mappings, a null takes out, and the rest stays."""
    sweep = world.submit(fixed={"train.max_epochs": 7})
    twin = world.clone(sweep, {})
    assert (twin.spec, twin.id == sweep.id) == (sweep.spec, False)
    other = world.clone(sweep, {"name": "other", "search": {"trials": 9}, "fixed": {"train.max_epochs": None}})
    assert (other.name, other.spec["search"]["trials"], other.spec["fixed"]) == ("other", 9, {})
    assert other.spec["search"]["seed"] == sweep.spec["search"]["seed"]


@pytest.mark.parametrize(("asked", "cloned"), [({}, (3, 1)), ({"trials": 2}, (3, 1)), ({"trials": 1}, (1, 1))])
def test_a_clone_of_a_whole_grid_tries_its_own_grid_whole(
    world: World, asked: dict[str, int], cloned: tuple[int, int]
) -> None:
    """With more values or fewer, unless the patch has a number; a part of a grid stays as many points.

    Another sampler tries as many points as the grid did.
    """

    def sizes(*values: int) -> dict[str, Any]:
        return {"space": {"train.batch_size": {"kind": "choice", "values": list(values)}}}

    sweep = world.submit(**sizes(32, 64), search={"sampler": "grid", **asked})
    clones = world.clone(sweep, sizes(32, 64, 128)), world.clone(sweep, sizes(32))
    assert tuple(clone.spec["search"]["trials"] for clone in clones) == cloned
    assert world.clone(sweep, {**sizes(32, 64, 128), "search": {"trials": 2}}).spec["search"]["trials"] == 2
    assert world.clone(sweep, {"search": {"sampler": "random"}}).spec["search"]["trials"] == asked.get("trials", 2)


@pytest.mark.parametrize("changes", [{"family": "none"}, {"name": None}, [], None])
def test_a_clone_is_checked_like_any_spec(world: World, changes: Any) -> None:
    """With its faults."""
    sweep = world.submit()
    with pytest.raises(InvalidSpec):
        world.clone(sweep, changes)
    assert world.store.sweeps() == [sweep]


# idempotency keys


def test_a_key_makes_one_sweep(world: World) -> None:
    """The same body again, in whatever order of its keys, is the same sweep; without a key each is another one."""
    first = world.submit("key")
    assert world.submit("key", dict(reversed(SPEC.items()))) == first
    assert world.submit("other key").id != first.id
    assert world.submit().id != world.submit().id


def test_a_key_with_another_body_is_refused(world: World) -> None:
    """And makes nothing."""
    world.submit("key")
    with pytest.raises(KeyReused):
        world.submit("key", search={"trials": 6})
    assert len(world.store.sweeps()) == 1


def test_a_key_gives_its_sweep_whatever_the_spec_would_be_told_now(world: World) -> None:
    """What it refers to is gone: a node with a GPU, an earlier sweep. Who lost the answer is still given it."""
    world.cluster.cluster = [{"CPU": 4, "GPU": 1}]
    earlier = world.submit()
    asked: dict[str, Any] = {"search": {"warm_start": [earlier.id]}, "resources": {"gpus": 1}}
    first = world.submit("key", **asked)
    world.cluster.cluster = [{"CPU": 4}]
    world.store.delete_sweep(earlier.id)
    assert world.submit("key", **asked) == first
    with pytest.raises(KeyReused):
        world.submit("key")
    with pytest.raises(InvalidSpec):
        world.submit("other key", **asked)


def test_a_key_makes_one_clone_whatever_becomes_of_its_source(world: World) -> None:
    """Changed since, or deleted; another source or other changes are another request."""
    source, other = world.submit(), world.submit()
    changes = {"name": "twin"}
    first = world.clone(source, changes, "key")
    world.store.change_spec(source.id, {**source.spec, "search": {"trials": 9}}, seen=source, at=world.clock.now())
    assert world.clone(source, changes, "key") == first
    for asked in ((other, changes), (source, {"name": "other"})):
        with pytest.raises(KeyReused):
            world.clone(*asked, "key")
    world.store.delete_sweep(source.id)
    assert world.clone(source, changes, "key") == first
    with pytest.raises(NotFound):
        world.clone(source, changes, "other key")


def test_a_key_is_forgotten_after_a_day(world: World) -> None:
    """It then makes another sweep."""
    first = world.submit("key")
    world.clock.advance(submission.REMEMBERED.total_seconds() - 1)
    assert world.submit("key").id == first.id
    world.clock.advance(2)
    assert world.submit("key").id != first.id


def test_a_request_under_way_is_a_conflict_and_a_dead_one_is_taken_over() -> None:
    """The next one is told to wait; after a while it makes the sweep, under the id that was claimed."""
    world = World(DyingStore())
    with pytest.raises(SystemExit):
        world.submit("key")
    with pytest.raises(Conflict, match="still under way"):
        world.submit("key")
    world.clock.advance(submission.UNDER_WAY.total_seconds())
    assert world.submit("key").id == "sweep1"
    assert world.submit("key").id == "sweep1"
    assert len(world.store.sweeps()) == 1


def test_two_that_take_over_a_dead_request_make_one_sweep() -> None:
    """The one that comes second finds the other's."""

    class Twin(DyingStore):
        def claim(self, claim: Claim, *, expired_before: datetime) -> Claim:
            held = super().claim(claim, expired_before=expired_before)
            if self.died and not self.raced:
                self.raced = True
                self.other = world.submit("key")
            return held

        raced = False
        other: Sweep | None = None

    store = Twin()
    world = World(store)
    with pytest.raises(SystemExit):
        world.submit("key")
    world.clock.advance(timedelta(minutes=1).total_seconds())
    assert world.submit("key") == store.other
    assert store.raced
    assert len(world.store.sweeps()) == 1
