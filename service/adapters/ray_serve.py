"""Replicas as a Ray Serve application, declared through Ray's REST API only: this process never imports Ray.

Replicas have the environment of the node that they are on, with its home and where the database is. By which settings
answers are made, the API tells them.
"""

from __future__ import annotations

import hashlib
import json
from http import HTTPStatus
from typing import Any, final

from service.adapters.ray_head import RayHead, content, reason
from service.errors import Unavailable
from service.replicas_config import TOLD, ReplicasConfig
from service.settings import Settings, is_loopback

APPLICATION = "sweepserve"
PURPOSE = "replicas"
"""Of the secret by which a replica knows the API."""
PATH = "/api/serve/applications/"
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


@final
class RayServe:
    """Keeps the replicas deployed.

    Args:
        head: of the cluster that they are on.
        config: how many there are, and what each takes.
        settings: the API's.
    """

    def __init__(self, head: RayHead, config: ReplicasConfig, settings: Settings) -> None:
        self._head, self._config = head, config
        environment = settings.to_environment()
        self._told = {name: environment[name] for name in TOLD}

    def secret(self) -> str:
        """What a replica wants to see; none on a cluster without a token."""
        return self._head.secret(PURPOSE)

    def deploy(self) -> None:
        """Declares the replicas where they are not, or are others; whatever else Ray Serve runs stays.

        Raises:
            Unavailable: the cluster does not answer, or the replicas do not come up there.
        """
        there: dict[str, Any] = content(self._head.ask("GET", PATH))["applications"]
        ours, wanted = there.pop(APPLICATION, None), self._application()
        deployed = (ours or {}).get("deployed_app_config") or {}
        if ours and deployed.get("args", {}).get("digest") == wanted["args"]["digest"] and ours["status"] not in FAILED:
            return
        others = [one["deployed_app_config"] for one in there.values() if one.get("deployed_app_config")]
        loopback = is_loopback(self._config.host)
        answer = self._head.ask(
            "PUT",
            PATH,
            {
                "proxy_location": "HeadOnly" if loopback else "EveryNode",
                "http_options": {"host": "127.0.0.1" if loopback else "0.0.0.0", "port": self._config.port},
                "applications": [*others, wanted],
            },
        )
        if answer.status_code != HTTPStatus.OK:
            raise Unavailable(f"Ray Serve did not take the replicas: {reason(answer)}")
        if ours and ours["status"] in FAILED:
            raise Unavailable(f"the replicas are {ours['status']}: {ours['message']:.500}")

    def _application(self) -> dict[str, Any]:
        config = self._config
        declared: dict[str, Any] = {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": "service.replica:build",
            "deployments": [
                {
                    "name": "Replica",
                    "autoscaling_config": {
                        "min_replicas": config.min,
                        "max_replicas": config.max,
                        "target_ongoing_requests": config.target,
                    },
                    # More than a batch, or there would never be a full one; what is too much is refused by the
                    # replica's own queue.
                    "max_ongoing_requests": 8 * config.target,
                    "ray_actor_options": {"num_cpus": config.cpus, "num_gpus": config.gpus},
                    "health_check_period_s": 2,
                    "graceful_shutdown_timeout_s": 5,
                }
            ],
        }
        arguments = {"secret": self.secret(), "workers": str(config.workers), **self._told}
        digest = hashlib.sha256(json.dumps([declared, arguments], sort_keys=True).encode()).hexdigest()
        return {**declared, "args": {**arguments, "digest": digest}}
