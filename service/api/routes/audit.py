"""The audit: who changed what."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.pages import Limit, PageToken, page, place
from service.api.parts import Here
from service.api.views import Deeds, DeedView

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("")
def list_deeds(
    here: Here,
    limit: Limit = 100,
    page_token: PageToken = None,
) -> Deeds:
    """What was changed through the API and by whom, newest first, a page at a time. Needs the scope `admin`."""
    (before,) = place(page_token, int) or (None,)
    deeds, token = page(here.access.deeds(limit=limit + 1, before=before), limit, lambda deed: (deed.number,))
    return Deeds(deeds=[DeedView.model_validate(deed) for deed in deeds], next_page_token=token)
