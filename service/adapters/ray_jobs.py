"""Sweep drivers as Ray jobs, through Ray's REST API only: this process never imports Ray.

A job's driver inherits the environment and the working directory of the Ray head, so that the settings and the
database's password reach it without being part of the job, where anyone who may list jobs could read them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Literal, final

from service.adapters.ray_head import RayHead, content, reason
from service.errors import Unavailable
from service.port_values import Job

STATES: Mapping[str, Literal["pending", "running", "succeeded", "failed", "stopped"]] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "STOPPED": "stopped",
}


@final
class RayJobs:
    """The launcher (`ports.Launcher`) over the Jobs API of a Ray head.

    Args:
        url: where the head's dashboard listens, `http://127.0.0.1:8265`.
        token_path: file with the cluster's authentication token, read anew for each request since a restarted head
            may have another; no such file: a cluster without authentication.
        python: the interpreter on the cluster that can import `service`.
    """

    def __init__(self, url: str, *, token_path: Path, python: str = sys.executable) -> None:
        self._head = RayHead(url, token_path=token_path)
        self._python = python

    def close(self) -> None:
        """Drops the connections."""
        self._head.close()

    def launch(self, sweep_id: str, attempt: int, *, trace: str = "") -> None:
        """Starts the driver; asking again for the same attempt starts nothing. Raises Unavailable.

        The job has `trace` in its metadata and, as TRACEPARENT, in its environment.
        """
        traced = ["env", f"TRACEPARENT={trace}"] if trace else []
        submission = _submission(sweep_id, attempt)
        answer = self._head.ask(
            "POST",
            "/api/jobs/",
            {
                "submission_id": submission,
                "entrypoint": shlex.join([*traced, self._python, "-m", "service.driver", sweep_id, str(attempt)]),
                "metadata": {"sweep": sweep_id, "attempt": str(attempt), "traceparent": trace},
            },
        )
        # Ray answers a known submission id with a 500 and a traceback; whether the job is there tells the two apart.
        if not answer.is_success and self._head.ask("GET", f"/api/jobs/{submission}").status_code != HTTPStatus.OK:
            raise Unavailable(f"Ray did not take job {submission}: {reason(answer)}")

    def job(self, sweep_id: str, attempt: int) -> Job:
        """How that driver is. Raises Unavailable."""
        answer = self._head.ask("GET", f"/api/jobs/{_submission(sweep_id, attempt)}")
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return Job(state="missing", message="the cluster knows no such job")
        said = content(answer)
        message = str(said.get("message") or "").partition(", last available logs")[0]  # `logs` has these
        state = STATES.get(str(said.get("status")))
        if state is None:
            raise Unavailable(f"need a job's status from {answer.url}, got {said.get('status')!r}")
        return Job(
            state=state,
            message=message,
            extra={key: said.get(key) for key in ("error_type", "driver_exit_code", "start_time", "end_time")},
        )

    def stop(self, sweep_id: str, attempt: int) -> None:
        """Ends that driver at once, if it still runs. Raises Unavailable."""
        answer = self._head.ask("POST", f"/api/jobs/{_submission(sweep_id, attempt)}/stop")
        if answer.status_code != HTTPStatus.NOT_FOUND:
            content(answer)

    def logs(self, sweep_id: str, attempt: int) -> str:
        """What that driver printed so far; empty where there is no such job. Raises Unavailable."""
        answer = self._head.ask("GET", f"/api/jobs/{_submission(sweep_id, attempt)}/logs")
        return "" if answer.status_code == HTTPStatus.NOT_FOUND else str(content(answer).get("logs") or "")

    def resources(self) -> Mapping[str, float]:
        """What the living nodes have in all, as `{"CPU": 2, "memory": 8e9}`. Raises Unavailable."""
        nodes = self.nodes()
        names = {name for node in nodes for name in node}
        return {name: sum(node.get(name, 0) for node in nodes) for name in names}

    def nodes(self) -> Sequence[Mapping[str, float]]:
        """What each living node has in all. Raises Unavailable."""
        answer = self._head.ask("GET", "/api/v0/nodes?detail=1&limit=10000")
        said = content(answer)
        try:
            alive = [node["resources_total"] for node in said["data"]["result"]["result"] if node["state"] == "ALIVE"]
            return [  # one that has just come may not have told what it has
                {name: amount for name, amount in has.items() if not name.startswith("node:")} for has in alive if has
            ]
        except (KeyError, TypeError, AttributeError) as error:  # a head that is starting or ending, or none of Ray's
            raise Unavailable(f"need a list of nodes from {answer.url}, got {str(said)[:200]}") from error


def _submission(sweep_id: str, attempt: int) -> str:
    return f"sweep-{sweep_id}-{attempt}"
