"""What of ours Tune could write down in its snapshots, and what no cluster can give it."""

from __future__ import annotations

import mmap
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray import cloudpickle
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from service.domain import TrialState
from service.driver.tune import PATIENCE_SECONDS, _Judge, _Suggest, _Watch, most, out_of_memory
from service.plan import Resources
from tests.service.driver.run_harness import Harness


class Secret:
    """Stands where the run and its store are; it must not be reached by a pickler."""

    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_snapshots_hold_nothing_of_the_run(dumps: Any) -> None:
    """Tune pickles its searcher, stopper and callbacks: that neither fails nor reaches the store and its URL."""
    run: Any = Secret()
    watch = _Watch(run, Resources())
    for ours in (_Suggest(run, watch, Resources(), {}), _Judge(run, watch, {}), watch):
        assert vars(pickle.loads(dumps(ours))) == {}  # noqa: S301 - what was dumped a moment ago


def test_want_of_memory_is_told_from_other_errors() -> None:
    """As Python and PyTorch say it, themselves or through a task that they happened in."""
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as pythons:
        bytearray(2**62)
    for error in (torchs.value, pythons.value, torch.OutOfMemoryError("CUDA out of memory")):
        assert out_of_memory(error)
        assert out_of_memory(RayTaskError("f", str(error), error))
        assert out_of_memory(str(error)) or isinstance(error, MemoryError | torch.OutOfMemoryError)
    assert not out_of_memory(RuntimeError("shapes do not fit"))
    assert not out_of_memory("the worker died")


def test_want_of_memory_is_told_where_rays_monitor_ended_a_worker() -> None:
    """In the words of the program that ends it, however Ray hands them on."""
    with (Path(ray.__file__).parent / "core/src/ray/raylet/raylet").open("rb") as file:
        program = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        place = program.find(b"killed due to the node running low on memory")
        assert place >= 0, "Ray says it otherwise by now"
        words = program[program.rfind(b"\0", 0, place) + 1 : program.find(b"\0", place)].decode()
    died = ActorDiedError(ActorDiedErrorContext(error_message=words, actor_id=bytes(16)))
    for error in (OutOfMemoryError(words), died, f"{OutOfMemoryError.__name__}: {words}", words):
        assert out_of_memory(error)
    assert not out_of_memory(ActorDiedError(ActorDiedErrorContext(error_message="killed", actor_id=bytes(16))))


@pytest.mark.parametrize(
    ("nodes", "gets"),
    [
        ([{"CPU": 16.0}, {"CPU": 2.0, "GPU": 1.0}], (2, 1)),
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 8.0}], (4, 1)),
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 2.0}], (2, 2)),
        ([{"CPU": 16.0, "GPU": 8.0}], (4, 2)),
    ],
)
def test_an_enlarged_share_is_one_that_some_node_has(nodes: Any, gets: tuple[float, float]) -> None:
    """All of it on one node, and no less than the usual share."""
    has = most(nodes, Resources(cpus=2, gpus=1))
    assert (has["CPU"], has["GPU"]) == gets


class Worker:
    """Stands where an actor is."""


def test_trials_that_get_no_node_say_so_until_one_does(harness: Harness) -> None:
    """Not while another one of the sweep is at work, nor before one has been started."""
    seconds, worker = 0.0, Worker()
    watch = _Watch(harness.run, Resources(cpus=2, gpus=0.5), now=lambda: seconds)

    def wait() -> list[str]:
        nonlocal seconds
        watch.on_step_begin()
        seconds += PATIENCE_SECONDS
        watch.on_step_begin()
        return harness.waits()

    def trial(number: int) -> Any:
        identity = {"trial_id": f"s-{number:04}"}
        return SimpleNamespace(config=identity, temporary_state=SimpleNamespace(ray_actor=worker))

    assert wait() == []
    harness.start()
    watch.on_trial_start(trial=trial(0))
    harness.start()
    assert wait() == []
    harness.report("s-0000", 1, 0.5, finished="max_epochs reached")
    watch.on_trial_complete(trial=trial(0))
    why = "no node has room for one with 2 CPU and 0.5 GPU, or its worker is slow to start"
    reason = f"no trial has begun for 30 s: {why}"
    assert wait() == [reason]
    assert harness.store.sweep("s").reason == reason
    watch.on_trial_start(trial=trial(1))
    assert wait() == [reason, ""]
    assert harness.store.sweep("s").reason == ""


def test_a_trial_that_waited_for_the_disk_is_not_told_to_wait_for_a_node(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a trial Tune asks for minutes in one step; those are not without a node."""
    seconds = 0.0
    monkeypatch.setattr("service.driver.tune.ray.cluster_resources", lambda: {"CPU": 1.0})
    watch = _Watch(harness.run, Resources(), now=lambda: seconds)
    suggest = _Suggest(harness.run, watch, Resources(), {})
    watch.on_step_begin()
    harness.free = 0
    assert suggest.suggest("first") is None
    seconds, harness.free = 10 * PATIENCE_SECONDS, 10**11
    assert suggest.suggest("first")["trial_id"] == "s-0000"
    watch.on_step_begin()
    (shortage, end) = harness.waits()
    assert ("free" in shortage, end) == (True, "")
    seconds += PATIENCE_SECONDS
    watch.on_step_begin()
    assert harness.waits()[2].startswith("no trial has begun")


class Cluster:
    """What Tune tells of the trials of a run, and what became of their workers."""

    def __init__(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        self.harness, self.seconds, self.killed, self.names = harness, 0.0, list[Any](), dict[str, str]()
        self.watch = _Watch(harness.run, Resources(), now=lambda: self.seconds)
        self.judge = _Judge(harness.run, self.watch, self.names)
        monkeypatch.setattr("service.driver.tune.ray.kill", self.killed.append)

    def hand_over(self) -> Any:
        """The run gives Tune a trial."""
        trial_id = self.harness.start()["trial_id"]
        self.names[trial_id] = trial_id
        return SimpleNamespace(config={"trial_id": trial_id}, temporary_state=SimpleNamespace(ray_actor=Worker()))


@pytest.mark.parametrize("pause", [True, False])
def test_a_sweep_that_drains_does_not_wait_for_trials_without_room(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, pause: bool
) -> None:
    """Tune ends with the last trial that had begun; what gets room meanwhile does not begin, and that is no death."""
    cluster = Cluster(harness, monkeypatch)
    begun, late, _ = (cluster.hand_over() for _ in range(3))
    cluster.watch.on_trial_start(trial=begun)
    assert not cluster.judge.stop_all()
    harness.run.drain(pause=pause)
    assert not cluster.judge.stop_all()
    cluster.watch.on_trial_start(trial=late)
    assert cluster.killed == [late.temporary_state.ray_actor]
    assert harness.report(begun.config["trial_id"], 1, 0.5)
    cluster.watch.on_trial_complete(trial=begun)
    assert cluster.judge.stop_all()
    harness.run.close("the sweep ended")
    state = TrialState.PAUSED if pause else TrialState.STOPPED
    assert [trial.state for trial in harness.trials()] == [state] * 3


def test_a_trial_whose_end_waits_for_room_is_not_silent(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reports nothing, and goes on waiting until its sweep drains."""
    cluster = Cluster(harness, monkeypatch)
    trial = cluster.hand_over()
    cluster.watch.on_trial_start(trial=trial)
    for _ in range(3):
        cluster.seconds += 5
        assert not cluster.judge(trial.config["trial_id"], {"report": None})
        cluster.watch.kill_silent(6)
    assert not cluster.killed
    harness.run.drain(pause=True)
    assert cluster.judge(trial.config["trial_id"], {"report": None})
    cluster.seconds += 6
    cluster.watch.kill_silent(6)
    assert cluster.killed == [trial.temporary_state.ray_actor]
