"""A cluster that is not there, for tests."""
# ruff: noqa: D102 - the port documents the methods

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.errors import Unavailable
from service.port_values import Job


class MemoryLauncher:
    """`ports.Launcher` without a cluster: it remembers what it was asked, and jobs go as the test says.

    `launches` lists the drivers started, in order; `traces` has the trace that each was told; `cluster` has what its
    nodes have. While `down` it is unavailable.
    """

    def __init__(self) -> None:
        self.down = False
        self.cluster: list[Mapping[str, float]] = [{"CPU": 2.0, "GPU": 0.0}]
        self.launches: list[tuple[str, int]] = []
        self.traces: dict[tuple[str, int], str] = {}
        self._jobs: dict[tuple[str, int], Job] = {}
        self._logs: dict[tuple[str, int], str] = {}

    def set_job(self, sweep_id: str, attempt: int, job: Job, *, logs: str = "") -> None:
        """What the cluster says of a driver from now on; a missing job is forgotten, with its log."""
        self._jobs[sweep_id, attempt] = job
        self._logs[sweep_id, attempt] = logs
        if job.state == "missing":
            del self._jobs[sweep_id, attempt], self._logs[sweep_id, attempt]

    def launch(self, sweep_id: str, attempt: int, *, trace: str = "") -> None:
        self._answer()
        if (sweep_id, attempt) not in self._jobs:
            self.traces[sweep_id, attempt] = trace
            self.launches.append((sweep_id, attempt))
            self.set_job(sweep_id, attempt, Job(state="pending"))

    def job(self, sweep_id: str, attempt: int) -> Job:
        self._answer()
        return self._jobs.get((sweep_id, attempt), Job(state="missing"))

    def stop(self, sweep_id: str, attempt: int) -> None:
        if self.job(sweep_id, attempt).alive:
            self._jobs[sweep_id, attempt] = Job(state="stopped", message="stopped on request")

    def logs(self, sweep_id: str, attempt: int) -> str:
        self._answer()
        return self._logs.get((sweep_id, attempt), "")

    def resources(self) -> Mapping[str, float]:
        return {name: sum(node.get(name, 0.0) for node in self.nodes()) for name in ("CPU", "GPU")}

    def nodes(self) -> Sequence[Mapping[str, float]]:
        self._answer()
        return list(self.cluster)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the cluster does not answer")
