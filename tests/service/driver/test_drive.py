"""The driver as a real process on a real Ray cluster, training real networks on real digits."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from service import verbs
from service.adapters.clock import SystemClock
from service.adapters.sql_store import SqlStore
from service.domain import Sweep, SweepState, TrialState
from service.settings import Settings
from service.spec import SweepSpec
from trainables import checkpoint
from trainables.data.inventory import stored

pytestmark = pytest.mark.slow
SWEEP = "aaaabbbb"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-a-cluster-that-lives-for-one-test-module"}
HEAD = """
import sys, ray
context = ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(name="cluster", scope="module")
def _cluster(ray_temp: str) -> Iterator[tuple[str, psutil.Process]]:
    """A Ray cluster of two cores for this module: its address, and the process whose descendants it is."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", HEAD, ray_temp]
    with subprocess.Popen(command, env={**os.environ, **TOKEN}, **pipes) as head:  # type: ignore[call-overload]
        try:
            assert head.stdout is not None
            yield head.stdout.readline().strip(), psutil.Process(head.pid)
        finally:
            family = psutil.Process(head.pid).children(recursive=True)
            head.communicate()  # the end of its input is its end
            for process in psutil.wait_procs(family, timeout=10)[1]:
                process.kill()


class Lab:
    """A home folder with a store, and drivers started in it."""

    def __init__(self, home: Path, address: str, head: psutil.Process) -> None:
        self.settings = Settings(home=home)
        self.store = SqlStore(self.settings.database_url, sweeps_root=self.settings.sweeps_root)
        self.store.migrate()
        self.head = head
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SWEEPSERVE_")}
        self.environment = {**kept, **TOKEN, **self.settings.to_environment(), "RAY_ADDRESS": address}
        self.log = home / "driver.log"
        self.drivers: list[subprocess.Popen[bytes]] = []
        self._others: list[psutil.Process] = []
        """Workers that were there before the last driver: another one's, which may take their time to end."""

    def submit(self, **changes: Any) -> None:
        document = {
            "name": "little",
            "family": "narrow_resnet",
            "data": {"name": "digits", "train": 200, "validation": 100, "test": 50, "image_size": 16},
            "fixed": {"model.channels": [8, 16, 16, 16], "train.batch_size": 50, "train.max_epochs": 3},
            "space": {"train.learning_rate": {"kind": "float", "low": 1e-3, "high": 1e-2, "log": True}},
            "search": {"trials": 4},
            "stop": {"pruner": "none"},
            **changes,
        }
        spec = SweepSpec.from_dict(document).to_dict()
        self.store.add_sweep(Sweep(id=SWEEP, name="little", spec=spec, created_at=SystemClock().now()))

    def drive(self, *program: str) -> subprocess.Popen[bytes]:
        """Starts a driver, or a program that is nearly one."""
        attempt = self.store.sweep(SWEEP).attempt
        self._others = _workers_below(self.head)
        with self.log.open("ab") as log:
            command = [sys.executable, *(program or ("-m", "service.driver")), SWEEP, str(attempt)]
            driver = subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        self.drivers.append(driver)
        return driver

    def until(self, happened: Callable[[], bool], seconds: float = 180) -> None:
        """Waits."""
        started = time.monotonic()
        while not happened():
            assert time.monotonic() - started < seconds, self.log.read_text()
            assert self.drivers[-1].poll() is None or happened(), self.log.read_text()
            time.sleep(0.05)

    def workers(self) -> list[psutil.Process]:
        """The processes in which trials of the last driver run."""
        return [one for one in _workers_below(self.head) if one not in self._others]

    def measured(self) -> list[tuple[str, int]]:
        return [(one.trial_id, one.step) for one in self.store.measurements(SWEEP)]


def _workers_below(top: psutil.Process) -> list[psutil.Process]:
    named = []
    for process in top.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::") and "Trainable" in " ".join(process.cmdline()):
                named.append(process)
    return named


@pytest.fixture(name="lab")
def _lab(tmp_path: Path, cluster: tuple[str, psutil.Process]) -> Iterator[Lab]:
    lab = Lab(tmp_path, *cluster)
    yield lab
    for driver in lab.drivers:
        driver.kill()
        driver.wait()
    lab.store.close()


def test_a_sweep_runs_to_its_end(lab: Lab) -> None:
    """Four trials, one of them diverging, one whose folder cannot be written: each has the state that it deserves."""
    blocked = lab.settings.sweeps_root / SWEEP / "trials" / f"{SWEEP}-0001"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder must be")
    rates = [0.002, 1e30]
    lab.submit(
        space={"train.learning_rate": {"kind": "choice", "values": rates}},
        search={"trials": 8, "sampler": "random", "seed": 1},
    )
    assert lab.drive().wait(timeout=120) == 0, lab.log.read_text()
    trials = lab.store.trials(SWEEP)
    assert lab.store.sweep(SWEEP).state is SweepState.COMPLETED
    assert [trial.number for trial in trials] == list(range(8))
    assert trials[1].state is TrialState.FAILED
    assert "Error" in trials[1].reason
    others = [trial for trial in trials if trial.number != 1]
    assert {trial.point["train.learning_rate"] for trial in others} == set(rates)
    for trial in others:
        if trial.point["train.learning_rate"] == rates[0]:
            assert trial.state is TrialState.COMPLETED
            assert trial.values is not None
            kept = max(one.metrics["validation/accuracy"] for one in lab.store.measurements(SWEEP, trial_id=trial.id))
            assert trial.values == (kept,)
        else:
            assert trial.state is TrialState.FAILED
            assert trial.reason.startswith("diverged: ")
    best = max((t for t in others if t.values), key=lambda trial: trial.values or (-math.inf,))
    champion = lab.store.model_versions("little")[0]
    assert champion.value == (best.values or ())[0]
    assert (Path(champion.path) / "model.safetensors").is_file()
    assert any(event.kind == "progress" for event in lab.store.events(SWEEP))
    assert len(list(lab.settings.pictures(SWEEP).glob("*.png"))) == 4
    assert len(lab.measured()) == len(set(lab.measured()))


def test_a_node_is_lost_and_its_trial_goes_on_elsewhere(lab: Lab) -> None:
    """SIGKILL to a second node's raylet and all of its workers, in the middle of a trial that runs there.

    Of three trials at a time two are on the first node, which has two cores.
    """
    ray_start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    address = ["--address", lab.environment["RAY_ADDRESS"], "--num-cpus", "1", "--object-store-memory", "100000000"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    node = psutil.Popen([*ray_start, *address], env=lab.environment, start_new_session=True, **quiet)

    try:
        lab.submit(
            fixed={"model.channels": [8, 16, 16, 16], "train.batch_size": 20, "train.max_epochs": 60},
            search={"trials": 3},
        )
        driver = lab.drive()
        lab.until(lambda: bool(_workers_below(node)) and len({trial for trial, _ in lab.measured()}) == 3)
    finally:
        family = [node, *node.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):  # it went by itself after its parent
                process.kill()
        psutil.wait_procs(family, timeout=10)
    assert not any(process.is_running() for process in family)
    assert driver.wait(timeout=240) == 0, lab.log.read_text()
    assert "lost its worker" in lab.log.read_text()
    trials = lab.store.trials(SWEEP)
    assert [trial.state for trial in trials] == [TrialState.COMPLETED] * 3, lab.log.read_text()
    assert lab.measured() == [(trial.id, step) for trial in trials for step in range(1, 61)]


def test_a_worker_that_hangs_is_replaced(lab: Lab) -> None:
    """A worker is frozen (SIGSTOP): after the silence limit it is ended, and its trial goes on in another."""
    lab.submit(
        fixed={"model.channels": [8, 16, 16, 16], "train.batch_size": 20, "train.max_epochs": 16},
        search={"trials": 2},
        stop={"pruner": "none", "silence_limit": "6s"},
    )
    driver = lab.drive()
    lab.until(lambda: len(lab.measured()) >= 2)
    frozen = lab.workers()[0]
    frozen.suspend()
    lab.until(lambda: frozen.status() == psutil.STATUS_STOPPED)
    assert driver.wait(timeout=120) == 0, lab.log.read_text()
    assert not frozen.is_running()
    assert "lost its worker: no report for 6 s" in lab.log.read_text()
    trials = lab.store.trials(SWEEP)
    assert [trial.state for trial in trials] == [TrialState.COMPLETED] * 2, lab.log.read_text()
    assert lab.measured() == [(trial.id, step) for trial in trials for step in range(1, 17)]


def test_a_trial_without_memory_is_tried_with_more_and_then_fails(lab: Lab) -> None:
    """A network that no machine holds: tried with one core's share and with two, and the reason is kept."""
    lab.submit(
        family="spatial_rnn",
        fixed={"model.layer": "fc", "model.parameter_budget": 10**15, "train.max_epochs": 1},
        search={"trials": 1},
    )
    assert lab.drive().wait(timeout=90) == 1
    (trial,) = lab.store.trials(SWEEP)
    assert trial.state is TrialState.FAILED
    assert trial.reason.startswith("it ran out of memory again, with 2 cpus:")
    assert "gets twice the share" in lab.log.read_text()


def test_cancel_ends_a_sweep_in_the_middle_of_long_epochs(lab: Lab) -> None:
    """No epoch is waited for: the sweep is stopped without one, with its running trials stopped and no worker left."""
    lab.submit(
        data={"name": "digits", "train": 1197, "validation": 300, "test": 300, "image_size": 150},
        fixed={"model.channels": [64, 128, 256, 512], "train.batch_size": 1197, "train.max_epochs": 50},
    )
    driver = lab.drive()
    lab.until(lambda: len(lab.workers()) == 2)
    lab.store.move_sweep(SWEEP, SweepState.CANCELLING, at=SystemClock().now())
    lab.until(lambda: lab.store.sweep(SWEEP).state.final)
    assert lab.store.sweep(SWEEP).state is SweepState.STOPPED
    assert {trial.state for trial in lab.store.trials(SWEEP)} == {TrialState.STOPPED}
    assert lab.measured() == []
    assert driver.wait(timeout=60) == 0
    assert not lab.workers()


def test_data_that_cannot_be_made_fail_the_sweep(lab: Lab) -> None:
    """Before any trial is started, the sweep fails with the reason."""
    lab.settings.data_root.write_text("a file where a folder must be")
    lab.submit()
    assert lab.drive().wait(timeout=60) == 1
    sweep = lab.store.sweep(SWEEP)
    assert sweep.state is SweepState.FAILED
    assert str(lab.settings.data_root) in sweep.reason
    assert lab.store.trials(SWEEP) == []


def test_data_for_which_there_is_no_room_fail_the_sweep(lab: Lab) -> None:
    """What is to stay free stays so, and nothing is left of the dataset."""
    lab.environment["SWEEPSERVE_MIN_FREE_DISK"] = "100%"
    lab.submit()
    assert lab.drive().wait(timeout=60) == 1
    sweep = lab.store.sweep(SWEEP)
    assert sweep.state is SweepState.FAILED
    assert f"no room in {lab.settings.data_root}" in sweep.reason
    assert not list(lab.settings.data_root.rglob("*.npy"))


def test_stop_ends_a_sweep_whose_data_are_being_made(lab: Lab) -> None:
    """The driver waits for no more than the blocks in hand, as with cancel; they are kept."""
    lab.submit(data={"name": "pathfinder", "train": 200_000, "image_size": 32})  # a minute and more, if it is not ended
    driver = lab.drive()
    lab.until(lambda: any(event.kind == "progress" and event.data["done"] for event in lab.store.events(SWEEP)))
    lab.store.move_sweep(SWEEP, SweepState.STOPPING, at=SystemClock().now())
    assert driver.wait(timeout=20) == 0
    assert lab.store.sweep(SWEEP).state is SweepState.STOPPED
    (unfinished,) = stored(lab.settings.data_root)
    assert not unfinished.finished
    assert "Traceback" not in lab.log.read_text()


def test_a_request_that_no_node_can_meet_fails_the_sweep(lab: Lab) -> None:
    """When the cluster has had its time, with the reason, which its log on disk has too."""
    lab.submit(resources={"cpus": 1, "gpus": 1})
    lab.store.count_attempt(SWEEP)
    impatient = "from service.driver import drive, __main__; drive.NODE_SECONDS = 1; exit(__main__.main())"
    assert lab.drive("-c", impatient).wait(timeout=60) == 1
    sweep = lab.store.sweep(SWEEP)
    assert (sweep.state, sweep.reason) == (SweepState.FAILED, "a trial needs 1 GPU; the largest node has 0")
    assert lab.store.trials(SWEEP) == []
    assert sweep.reason in lab.settings.driver_log(SWEEP, 1).read_text()


def test_a_driver_that_has_a_successor_ends_and_touches_nothing(lab: Lab) -> None:
    """Its trials stay as they are, for the other to continue."""
    lab.submit(fixed={"model.channels": [8, 16, 16, 16], "train.batch_size": 20, "train.max_epochs": 500})
    lab.store.count_attempt(SWEEP)
    driver = lab.drive()
    lab.until(lambda: bool(lab.measured()))
    lab.store.count_attempt(SWEEP)
    assert driver.wait(timeout=20) == 0
    assert lab.store.sweep(SWEEP).state is SweepState.RUNNING
    assert {trial.state for trial in lab.store.trials(SWEEP)} == {TrialState.RUNNING}
    assert "ending: driver 2 has the sweep" in lab.settings.driver_log(SWEEP, 1).read_text()


def test_a_sweep_is_paused_resumed_and_extended_with_a_worker_and_a_driver_killed_on_the_way(lab: Lab) -> None:
    """Its trials go on from their checkpoints: at the end every epoch of every trial was measured once."""
    clock = SystemClock()
    lab.submit(
        fixed={"model.channels": [8, 16, 16, 16], "train.batch_size": 20, "train.max_epochs": 12},
        search={"trials": 2},
    )
    lab.drive()
    lab.until(lambda: len(lab.measured()) >= 3)
    verbs.pause(lab.store, SWEEP, clock=clock)
    assert lab.drivers[-1].wait(timeout=60) == 0, lab.log.read_text()
    assert lab.store.sweep(SWEEP).state is SweepState.PAUSED
    assert TrialState.RUNNING not in lab.store.count_trials(SWEEP)
    paused = lab.measured()
    verbs.resume(lab.store, SWEEP, clock=clock)
    driver = lab.drive()
    lab.until(lambda: len(lab.measured()) > len(paused))
    lab.workers()[0].kill()
    lab.until(lambda: "lost its worker" in lab.log.read_text())
    lab.until(lambda: "goes on" in lab.log.read_text().rpartition("lost its worker")[2])
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert any(trial.state is TrialState.RUNNING for trial in lab.store.trials(SWEEP))
    verbs.extend(lab.store, SWEEP, clock=clock, trials=3)
    driver = lab.drive()
    lab.until(lambda: len(lab.store.trials(SWEEP)) == 3)
    verbs.extend(lab.store, SWEEP, clock=clock, trials=4)
    assert driver.wait(timeout=120) == 0, lab.log.read_text()
    trials = lab.store.trials(SWEEP)
    assert [trial.state for trial in trials] == [TrialState.COMPLETED] * 4, lab.log.read_text()
    assert lab.measured() == [(trial.id, step) for trial in trials for step in range(1, 13)]


def test_a_sweep_keeps_the_checkpoints_that_it_needs(lab: Lab) -> None:
    """Its driver and a worker are killed on the way: at the end there are those of the best and of models, whole."""
    lab.submit(
        fixed={"model.channels": [8, 16, 16, 16], "train.batch_size": 20, "train.max_epochs": 3},
        search={"trials": 6},
        stop={"pruner": "asha", "grace_period": 1},
        resources={"keep_best": 1},
    )
    folder = lab.settings.trials(SWEEP)
    lab.drive()
    lab.until(lambda: any(trial.weights == "removed" for trial in lab.store.trials(SWEEP)))
    lab.workers()[0].kill()
    lab.drivers[-1].send_signal(signal.SIGKILL)
    lab.drivers[-1].wait()
    unfinished = [trial for trial in lab.store.trials(SWEEP) if not trial.state.final]
    assert all(trial.checkpoint is None or Path(trial.checkpoint).parent.is_dir() for trial in unfinished)
    assert lab.drive().wait(timeout=120) == 0, lab.log.read_text()
    trials = lab.store.trials(SWEEP)
    assert len(trials) == 6
    models = {version.trial_id for version in lab.store.model_versions("little")}
    best = lab.store.best_trials(SWEEP, mode="max", limit=1)[0]
    kept = {trial.id for trial in trials if trial.weights == "kept"}
    assert kept == {best.id, *models}, [(trial.id, trial.state, trial.weights) for trial in trials]
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)
    for trial_id in kept:
        assert checkpoint.latest(folder / trial_id) is not None


ON_A_FULL_DISK = """
import shutil, sys
from collections import namedtuple
from pathlib import Path
free = Path(sys.argv.pop(1))
shutil.disk_usage = lambda _: namedtuple("Usage", "total free")(10**11, int(free.read_text()))
from service.driver.__main__ import main
sys.exit(main())
"""


def test_a_sweep_waits_for_room_on_the_disk_and_goes_on_by_itself(lab: Lab) -> None:
    """Its running trial ends well meanwhile; no other begins before there is room."""
    lab.environment["SWEEPSERVE_MIN_FREE_DISK"] = "10%"
    free = lab.settings.home / "free"
    free.write_text(str(10**11))
    lab.submit(
        search={"trials": 3},
        resources={"max_concurrent": 1},
        fixed={"model.channels": [8, 16, 16, 16], "train.batch_size": 20, "train.max_epochs": 12},
    )
    driver = lab.drive("-c", ON_A_FULL_DISK, str(free))
    lab.until(lambda: bool(lab.measured()))
    free.write_text("0")
    lab.until(lambda: any(event.kind == "wait" for event in lab.store.events(SWEEP)))
    (trial,) = lab.store.trials(SWEEP)
    assert trial.state is TrialState.COMPLETED
    assert trial.step == 12
    free.write_text(str(10**11))
    assert driver.wait(timeout=120) == 0, lab.log.read_text()
    assert [trial.state for trial in lab.store.trials(SWEEP)] == [TrialState.COMPLETED] * 3
    assert [bool(event.data["reason"]) for event in lab.store.events(SWEEP) if event.kind == "wait"] == [True, False]
