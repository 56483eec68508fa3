"""Metrics for Prometheus."""

from __future__ import annotations

from typing import final

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from service.api.metrics import exposition
from service.api.parts import Here

router = APIRouter(tags=["health"])


@final
class Exposition(PlainTextResponse):
    """Prometheus' text format."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4


@router.get("/metrics", response_class=Exposition)
def get_metrics(here: Here) -> Exposition:
    """Requests by route, sweeps and trials by state, the queue, MLflow's backlog and the GPUs, for Prometheus."""
    return Exposition(exposition(here.metrics))
