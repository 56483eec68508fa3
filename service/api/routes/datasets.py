"""The datasets: what a sweep may learn."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.views import Datasets, DatasetView, summary_of
from trainables.data.datasets import DATASETS

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.get("")
def list_datasets() -> Datasets:
    """Every dataset, with what can be set of it."""
    return Datasets(
        datasets=[
            DatasetView(name=name, summary=summary_of(kind), data=kind.json_schema()) for name, kind in DATASETS.items()
        ]
    )
