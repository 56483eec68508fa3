"""The audit: who changed what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.parts import Here
from service.api.views import Deeds, DeedView

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("")
def list_deeds(
    here: Here,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="Only those with a smaller number")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Deeds:
    """What was changed through the API and by whom, newest first. Needs the scope `admin`."""
    return Deeds(deeds=[DeedView.model_validate(deed) for deed in here.access.deeds(limit=limit, before=before)])
