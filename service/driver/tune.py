"""A sweep on Ray Tune: Tune gives trials their resources and warm workers; every decision is the run's."""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final
from weakref import WeakValueDictionary

import ray
import torch
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.search import Searcher

from service.driver.run import Run
from service.driver.share import share
from service.plan import Resources
from trainables.trainable import TrialTrainable

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""What trials get to begin, with none of the sweep's at work, before it is told that they wait."""


def configure() -> None:
    """Keeps Tune from files and prints of its own, for as long as this process lives; the run's log says it all."""
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the store has every number
        "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # and every state
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_MAX_PENDING_TRIALS_PG": "8",  # workers that start at the same time; Tune would start one after the other
    }
    for name in ("ray.tune.tune", "ray.tune.analysis.experiment_analysis"):  # failed trials, files that are not there
        logging.getLogger(name).setLevel(logging.CRITICAL)


class _Engine:
    """What is ours inside Tune must not be in Tune's snapshots, which are pickles that nobody reads here."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


@final
class _Suggest(_Engine, Searcher):  # type: ignore[misc]  # Ray's annotations are not read
    """Gives Tune the trials that the run wants to run, no more at a time than the cluster holds."""

    def __init__(self, run: Run, watch: _Watch, resources: Resources, names: dict[str, str]) -> None:
        super().__init__()
        self._run, self._watch, self._resources, self._names = run, watch, resources, names

    def suggest(self, trial_id: str) -> Any:
        self._watch.look()  # without a trial Tune asks for minutes in one step
        if self._run.running >= _capacity(self._resources) and not self._run.ending:
            return None
        settings = self._run.start()
        if settings == "later":
            return None
        if settings == "never":
            return Searcher.FINISHED
        self._names[trial_id] = settings["trial_id"]
        return dict(settings)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The run knows already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep goes on from the store."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "") -> None:
        """Nothing: the store has it."""


@final
class _Judge(_Engine, tune.Stopper):  # type: ignore[misc]
    """Brings every report to the run, which says whether the trial ends there.

    Ends all when the run stops, or when it drains and only trials are left that have not begun.
    """

    def __init__(self, run: Run, watch: _Watch, names: dict[str, str]) -> None:
        self._run, self._watch, self._names = run, watch, names

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self._watch.hear(self._names[trial_id])
        report = result["report"]
        return self._run.ending if report is None else self._run.report(self._names[trial_id], report)

    def stop_all(self) -> bool:
        return self._run.stopping or (self._run.ending and not self._watch.working)


@final
class _Watch(_Engine, tune.Callback):  # type: ignore[misc]
    """Tells the run of errors and of waiting, and knows the workers so that they can be ended.

    It holds them weakly: a worker lives as long as somebody holds it, and that is Tune's to decide.
    """

    def __init__(self, run: Run, resources: Resources, *, now: Callable[[], float] = time.monotonic) -> None:
        self._run, self._resources, self._now = run, resources, now
        self._fed = now()
        """When a trial had a node last, or none needed one."""
        self._workers: WeakValueDictionary[str, Any] = WeakValueDictionary()
        """By trial. A worker that waits for its next trial is still known as the last one's."""
        self._heard: dict[str, float] = {}
        """When each trial that runs last gave a sign of life."""
        self._ended: dict[str, str] = {}
        """Why each trial lost its worker that did so by us."""

    def kill(self) -> None:
        """Ends every worker in the middle of what it does."""
        for worker in list(self._workers.values()):
            ray.kill(worker)

    def kill_silent(self, limit: float) -> None:
        """Ends the workers whose trials have not reported for so many seconds; the run hears why."""
        for trial_id, heard in list(self._heard.items()):
            worker = self._workers.get(trial_id)
            if worker is not None and self._now() - heard >= limit and trial_id not in self._ended:
                self._end(trial_id, worker, f"no report for {limit:g} s")

    def hear(self, trial_id: str) -> None:
        """The trial reports."""
        self._heard[trial_id] = self._now()

    @property
    def working(self) -> bool:
        """A trial has begun, not only waited for room or been set up."""
        return bool(self._heard)

    def look(self) -> None:
        """Sees whether a trial has a node, or none needs one."""
        if self.working or not self._run.running:
            self._fed = self._now()

    def on_step_begin(self, **_: Any) -> None:
        """Tells the run when none of its trials gets to begin, which Tune does not say: it waits with them."""
        self.look()
        starved = self._now() - self._fed >= PATIENCE_SECONDS
        self._run.starve(_why_none_begins(self._resources) if starved else "")

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        trial_id, worker = trial.config["trial_id"], trial.temporary_state.ray_actor
        self._workers[trial_id] = worker
        if self._run.ending:  # it had no room before; now its first step would only be waited for
            self._end(trial_id, worker, "its sweep ends")
        else:
            self.hear(trial_id)

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:
        self._heard.pop(trial.config["trial_id"], None)

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        trial_id, error = trial.config["trial_id"], _error(trial)
        self._heard.pop(trial_id, None)
        why = self._ended.pop(trial_id, None)
        reason = _last_line(str(error)).split(" Some common causes")[0]
        if out_of_memory(error):
            self._run.exhaust(trial_id, reason)
        elif isinstance(error, RayActorError) and not error.actor_init_failed:
            self._run.lose(trial_id, why or reason)
        else:
            self._run.fail(trial_id, reason)

    def _end(self, trial_id: str, worker: Any, why: str) -> None:
        self._ended[trial_id] = why
        ray.kill(worker)


@final
class Engine:
    """Tune, at work on one run in a thread of its own. Ray must be connected.

    Args:
        run: decides.
        resources: of one trial.
        prepare: done first, in the same thread.
    """

    def __init__(self, run: Run, resources: Resources, *, prepare: Callable[[], None]) -> None:
        self._run, self._resources, self._prepare = run, resources, prepare
        self._watch = _Watch(run, resources)
        self._nodes: list[Mapping[str, float]] = []
        self._thread = threading.Thread(target=self._work, name="tune", daemon=True)
        self.error: str | None = None
        """What ended the work, if it was not the run."""

    def misfit(self) -> str | None:
        """Why no node that is there can hold a trial; None: one can, and work may start."""
        self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return self._resources.misfit(self._nodes)

    def start(self) -> None:
        """Begins and returns at once."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Waits so long at most; True: it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def kill(self) -> None:
        """Ends the workers in the middle of what they do; Tune ends soon after."""
        self._watch.kill()

    def kill_silent(self, limit: float) -> None:
        """Ends the workers of trials that have not reported for so many seconds."""
        self._watch.kill_silent(limit)

    def _work(self) -> None:
        names: dict[str, str] = {}
        try:
            self._prepare()
            if self._run.ending:
                return
            with tempfile.TemporaryDirectory(prefix="sweepserve-tune-") as folder:
                tune.Tuner(
                    tune.with_resources(TrialTrainable, partial(_request, most(self._nodes, self._resources))),
                    tune_config=tune.TuneConfig(
                        num_samples=-1,
                        search_alg=_Suggest(self._run, self._watch, self._resources, names),
                        reuse_actors=True,
                        trial_dirname_creator=_folder_name,
                    ),
                    run_config=tune.RunConfig(
                        name="tune",
                        storage_path=folder,
                        stop=_Judge(self._run, self._watch, names),
                        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # checkpoints are our own
                        callbacks=[self._watch],
                        verbose=0,
                    ),
                ).fit()
        except Exception as error:
            logger.exception("the sweep cannot go on")
            self.error = _last_line(str(error)) or type(error).__name__


def _why_none_begins(resources: Resources) -> str:
    share = f"{resources.cpus:g} CPU" + (f" and {resources.gpus:g} GPU" if resources.gpus else "")
    why = f"no node has room for one with {share}, or its worker is slow to start"
    return f"no trial has begun for {PATIENCE_SECONDS:g} s: {why}"


def most(nodes: Sequence[Mapping[str, float]], resources: Resources) -> dict[str, float]:
    """The most that a trial can ask for, be its share enlarged: what one node has, of those that hold its usual share.

    Of several, that with most of the GPUs that an enlarged share has, then with most of the CPUs.
    """
    twice = share(resources, enlarged=True)
    holding = [node for node in nodes if resources.misfit([node]) is None]
    return max(
        (
            {"CPU": min(twice["cpus"], node.get("CPU", 0)), "GPU": min(twice["gpus"], node.get("GPU", 0))}
            for node in holding
        ),
        key=lambda has: (has["GPU"], has["CPU"]),
    )


def out_of_memory(error: BaseException | str) -> bool:
    """A trial's error says that there was not enough memory, of the machine or of a GPU."""
    if isinstance(error, RayTaskError):
        error = error.cause
    if isinstance(error, MemoryError | torch.OutOfMemoryError | OutOfMemoryError):
        return True
    text = str(error)  # PyTorch's allocator on the CPU raises a plain RuntimeError; Ray's monitor ends workers
    return "can't allocate memory" in text or "OutOfMemoryError" in text or "running low on memory" in text


def _request(limit: Mapping[str, float], config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    """What a trial asks of Ray: its share, and no more than a node has."""
    asked = {"CPU": min(config["cpus"], limit["CPU"]), "GPU": min(config["gpus"], limit["GPU"])}
    return tune.PlacementGroupFactory([{name: amount for name, amount in asked.items() if amount}])


def _capacity(resources: Resources) -> int:
    """How many trials the cluster can run at a time; one where it lost the last node for it, which may come back."""
    cluster = ray.cluster_resources()
    needs = {"CPU": resources.cpus, "GPU": resources.gpus}
    room = max(1, min(int(cluster.get(name, 0) / amount + 1e-9) for name, amount in needs.items() if amount > 0))
    return min(room, resources.max_concurrent or room)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _folder_name(trial: Any) -> str:
    return str(trial.trial_id)


def _error(trial: Any) -> Exception | str:
    """What Tune wrote down of a trial's error: the exception itself if a worker raised it or died."""
    if trial.pickled_error_file is not None:
        error: Exception = pickle.loads(Path(trial.pickled_error_file).read_bytes())  # noqa: S301 - our own file
        return error
    return Path(trial.error_file).read_text()
