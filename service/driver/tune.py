"""A sweep on Ray Tune: Tune gives trials their resources and warm workers; every decision is the run's."""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final
from weakref import WeakValueDictionary

import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.search import Searcher

from service.driver.run import Run
from service.plan import Resources
from trainables.trainable import TrialTrainable

logger = logging.getLogger(__name__)


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

    def __init__(self, run: Run, resources: Resources, names: dict[str, str]) -> None:
        super().__init__()
        self._run, self._resources, self._names = run, resources, names

    def suggest(self, trial_id: str) -> Any:
        if self._run.running >= _capacity(self._resources) and not self._run.stopping:
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
    """Brings every report to the run, which says whether the trial ends there; ends all when the run stops."""

    def __init__(self, run: Run, names: dict[str, str]) -> None:
        self._run, self._names = run, names

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._run.report(self._names[trial_id], result["report"])

    def stop_all(self) -> bool:
        return self._run.stopping


@final
class _Watch(_Engine, tune.Callback):  # type: ignore[misc]
    """Tells the run of errors, and knows the workers so that they can be ended.

    It holds them weakly: a worker lives as long as somebody holds it, and that is Tune's to decide.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._workers: WeakValueDictionary[Any, Any] = WeakValueDictionary()

    def kill(self) -> None:
        """Ends every worker in the middle of what it does."""
        for worker in list(self._workers.values()):
            ray.kill(worker)

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        worker = trial.temporary_state.ray_actor
        self._workers[worker._actor_id] = worker

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:
        error = _error(trial)
        reason = _last_line(str(error))
        if isinstance(error, RayActorError) and not error.actor_init_failed:
            self._run.lose(trial.config["trial_id"], reason.split(" Some common causes")[0])
        else:
            self._run.fail(trial.config["trial_id"], reason)


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
        self._watch = _Watch(run)
        self._thread = threading.Thread(target=self._work, name="tune", daemon=True)
        self.error: str | None = None
        """What ended the work, if it was not the run."""

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

    def _work(self) -> None:
        names: dict[str, str] = {}
        request = {"cpu": self._resources.cpus, "gpu": self._resources.gpus}
        try:
            self.error = misfit(ray.nodes(), self._resources)
            if self.error is not None:
                return
            self._prepare()
            if self._run.stopping:
                return
            with tempfile.TemporaryDirectory(prefix="sweepserve-tune-") as folder:
                tune.Tuner(
                    tune.with_resources(TrialTrainable, request),
                    tune_config=tune.TuneConfig(
                        num_samples=-1,
                        search_alg=_Suggest(self._run, self._resources, names),
                        reuse_actors=True,
                        trial_dirname_creator=_folder_name,
                    ),
                    run_config=tune.RunConfig(
                        name="tune",
                        storage_path=folder,
                        stop=_Judge(self._run, names),
                        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # checkpoints are our own
                        callbacks=[self._watch],
                        verbose=0,
                    ),
                ).fit()
        except Exception as error:
            logger.exception("the sweep cannot go on")
            self.error = _last_line(str(error)) or type(error).__name__


def misfit(nodes: Sequence[Mapping[str, Any]], resources: Resources) -> str | None:
    """Why no living node can ever hold one trial; None: one can, be it busy or not.

    Only nodes that are there count: a cluster that grows on demand would first have to be asked for one that fits.

    Args:
        nodes: as `ray.nodes()` gives them.
        resources: of one trial.
    """
    needs = {"CPU": resources.cpus, "GPU": resources.gpus}
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(node.get(name, 0) >= amount for name, amount in needs.items()) for node in alive):
        return None
    for name, amount in needs.items():
        largest = max((node.get(name, 0) for node in alive), default=0)
        if largest < amount:
            return f"a trial needs {amount:g} {name}; the largest node has {largest:g}"
    return f"a trial needs {resources.cpus:g} CPU and {resources.gpus:g} GPU; no node has both"


def _capacity(resources: Resources) -> int:
    """How many trials the cluster can run at a time; one where it lost the last node for it, which may come back."""
    cluster = ray.cluster_resources()
    needs = {"CPU": resources.cpus, "GPU": resources.gpus}
    return max(1, min(int(cluster.get(name, 0) / amount + 1e-9) for name, amount in needs.items() if amount > 0))


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
