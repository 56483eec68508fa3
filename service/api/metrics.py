"""What Prometheus asks for: requests as they were answered, and the state of sweeps when it asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.disk import Disk
from service.domain import SweepState, TrialState
from service.errors import Unavailable
from service.ports import Clock, Launcher, Store

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper ends of the histogram's buckets."""


@final
class Requests:
    """Counters and times of requests, of this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter(
            "sweepserve_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "sweepserve_request_seconds",
            "Time from a request to the end of its answer.",
            ("method", "route"),
            buckets=SECONDS,
            registry=registry,
        )

        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        kind = method, route, status
        if kind not in self._known:  # as many as there are routes and statuses; to look them up takes a lock each
            self._known[kind] = self._count.labels(method, route, str(status)), self._seconds.labels(method, route)
        count, took = self._known[kind]
        count.inc()
        took.observe(seconds)


@final
class State(Collector):
    """The sweeps as the store has them and the GPUs as the cluster has them, looked up at each scrape.

    What does not answer is left out, and `sweepserve_up` says which.
    """

    def __init__(self, store: Store, launcher: Launcher, clock: Clock, disk: Disk) -> None:
        self._store, self._launcher, self._clock, self._disk = store, launcher, clock, disk

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: registering asks no store."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        up = GaugeMetricFamily("sweepserve_up", "Whether it answers.", labels=("part",))
        try:
            yield from self._of_store()
            up.add_metric(["store"], 1)
        except Unavailable:
            up.add_metric(["store"], 0)
        try:
            yield _gauge("sweepserve_gpus", "GPUs of the cluster.", self._launcher.resources().get("GPU", 0.0))
            up.add_metric(["cluster"], 1)
        except Unavailable:
            up.add_metric(["cluster"], 0)
        try:
            yield from self._of_disk()
            up.add_metric(["disk"], 1)
        except OSError:
            up.add_metric(["disk"], 0)
        yield up

    def _of_disk(self) -> Iterator[Metric]:
        yield _gauge("sweepserve_disk_free_bytes", "Free where checkpoints go.", self._disk.free)
        yield _gauge("sweepserve_disk_needed_bytes", "Must be free there for trials to begin.", self._disk.needed)
        yield _gauge("sweepserve_disk_short", "1: trials wait for room on the disk.", bool(self._disk.shortage))

    def _of_store(self) -> Iterator[Metric]:
        census = self._store.census()
        sweeps = GaugeMetricFamily("sweepserve_sweeps", "Sweeps by state.", labels=("state",))
        for state in SweepState:
            sweeps.add_metric([state.value], census.sweeps.get(state, 0))
        yield sweeps
        trials = GaugeMetricFamily("sweepserve_trials", "Trials by state.", labels=("state",))
        for trial_state in TrialState:
            trials.add_metric([trial_state.value], census.trials.get(trial_state, 0))
        yield trials
        since = census.queued_since
        waited = max(0.0, (self._clock.now() - since).total_seconds()) if since is not None else 0.0
        yield _gauge("sweepserve_queue_wait_seconds", "How long the sweep that waits longest has been queued.", waited)
        yield _gauge("sweepserve_tracker_backlog", "Events that MLflow does not have yet.", census.untracked)
        yield _gauge("sweepserve_gpus_used", "GPUs that running trials have a share of.", census.gpus)


def exposition(registry: CollectorRegistry) -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
