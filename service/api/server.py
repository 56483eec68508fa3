"""The API as a process: the real parts, wired, behind uvicorn."""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import closing

import scipy.stats.qmc  # noqa: F401 - see below
import torch._dynamo  # noqa: F401 - see below
import uvicorn

# PyTorch's compiler, by which a spec's networks are outlined, Optuna and SciPy are imported here, not by a request
# that needs them: that takes seconds, meets the imports of other threads halfway, and after an upgrade of the package
# would bring code of another version into this process.
import service.adapters.optuna_search  # noqa: F401
from service import logs
from service.adapters.clock import SystemClock
from service.adapters.ray_head import RayHead
from service.adapters.ray_jobs import RayJobs
from service.adapters.ray_serve import RayServe
from service.adapters.sql_access import SqlAccess
from service.adapters.sql_store import SqlStore
from service.api.app import create_app
from service.api.coming_tracker import ComingTracker
from service.api.forwarding import Replicas
from service.errors import Unavailable
from service.inference.predictor import Predictors, settle_libraries
from service.inference.serving_config import ServingTable, serving_table
from service.ports import Tracker
from service.replicas_config import ReplicasConfig, replicas_config
from service.settings import Settings

GRACE = 2
"""Seconds that requests under way have to end when the process is asked to."""

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serves the API until SIGINT or SIGTERM.

    Raises:
        Unavailable: the port is taken, or the database does not answer.
        ValueError: a setting is none, or the database is of a later version.
        OSError: the home cannot be made.
    """
    logs.configure(as_json=settings.json_logs, text="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request, and Ray is asked each second
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settle_libraries()
    serving, replicas = serving_table(settings.serving), replicas_config(settings.replicas)
    with _listen(settings) as listening:
        settings.home.mkdir(parents=True, exist_ok=True)
        with (
            closing(SqlStore(settings.database_url, sweeps_root=settings.sweeps_root)) as store,
            closing(_ray(settings)) as launcher,
            closing(_head(settings)) as head,
        ):
            store.migrate()
            access = SqlAccess(store.engine)
            if settings.keys_required and all(key.revoked_at for key in access.list_keys()):
                logger.warning("requests need an API key, and there is none; `sweepserve keys create` makes one")
            app = create_app(
                store=store,
                access=access,
                launcher=launcher,
                tracker=ComingTracker(lambda: _mlflow(settings)),
                clock=SystemClock(),
                settings=settings,
                predictors=Predictors(store, serving=serving),
                replicas=_replicas(replicas, head, settings, serving) if replicas is not None else None,
            )
            config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE)
            logger.info("listening at %s", settings.api_url)
            uvicorn.Server(config).run(sockets=[listening])


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise Unavailable(
            f"port {settings.port} of {settings.host}: {reason}; set SWEEPSERVE_PORT to a free one"
        ) from error
    # Connections inherit it; asyncio sets it only on sockets that it made. Without it answers wait 40 ms for an ACK.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _ray(settings: Settings) -> RayJobs:
    # A cluster of the user's own need not have this process's interpreter at the same path.
    python = "python" if settings.ray_url else sys.executable
    return RayJobs(settings.jobs_url, token_path=settings.ray_token_path, python=python)


def _head(settings: Settings) -> RayHead:
    return RayHead(settings.jobs_url, token_path=settings.ray_token_path)


def _replicas(config: ReplicasConfig, head: RayHead, settings: Settings, serving: ServingTable) -> Replicas:
    cluster = RayServe(head, config, settings)
    return Replicas(config.url, secret=cluster.secret, serving=serving, deploy=cluster.deploy)


def _mlflow(settings: Settings) -> Tracker:
    from service.adapters.mlflow_tracker import MlflowTracker

    return MlflowTracker(settings)
