"""Models: what sweeps found, and which version of each is its champion."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from pydantic import Field

from service.api.pages import Limit, PageToken, page, place
from service.api.parts import Here
from service.api.versions import VERSIONED, Versioned
from service.api.views import Models, ModelView, Promotions, PromotionView, View
from service.champions import standing
from service.domain import Promotion
from service.errors import ServiceError

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=VERSIONED)
def list_models(
    here: Here,
    version: Versioned,
    family: Annotated[str | None, Query(description="Only models of this model family")] = None,
    limit: Limit = 100,
    page_token: PageToken = None,
) -> Models:
    """The champion of every model, by name, a page at a time."""
    (after,) = place(page_token, str) or (None,)
    champions, token = page(
        here.store.models(family=family, limit=limit + 1, after=after), limit, lambda one: (one.name,)
    )
    found = Models(models=[ModelView.model_validate(champion) for champion in champions], next_page_token=token)
    version.is_(found.model_dump())
    return found


@router.get("/{name}/promotions")
def list_promotions(name: str, here: Here, limit: Limit = 100, page_token: PageToken = None) -> Promotions:
    """The changes of the model's champion, newest first, a page at a time: when, how, by whom and why."""
    (before,) = place(page_token, int) or (None,)
    here.store.champion(name)
    found = here.store.promotions(name, limit=limit + 1, before=before)
    promotions, token = page(found, limit, lambda one: (one.number,))
    return Promotions(promotions=[PromotionView.model_validate(one) for one in promotions], next_page_token=token)


class Wish(View):
    """Which version is to answer."""

    version: Annotated[int, Field(ge=1, le=2**31)]
    reason: Annotated[str, Field(max_length=1000)] = ""


class Undo(View):
    """Why the champion before is to answer again."""

    reason: Annotated[str, Field(max_length=1000)] = ""


@router.post("/{name}/promote")
async def promote(name: str, wish: Wish, request: Request, here: Here) -> PromotionView:
    """Makes a version the model's champion, whatever its value; a better trial still takes its place.

    It is in memory before it answers, and its engine is ready unless that takes too long, so that no request waits.
    """
    await (here.replicas or here.predictors).ready(name, wish.version)

    def change() -> Promotion:
        return here.store.promote(name, wish.version, at=here.clock.now(), by=_asker(request), reason=wish.reason)

    promotion = await anyio.to_thread.run_sync(change)
    here.predictors.forget(name)
    return PromotionView.model_validate(promotion)


@router.post("/{name}/rollback")
async def roll_back(name: str, request: Request, here: Here, undo: Undo | None = None) -> PromotionView:
    """Undoes the last promotion that stands: the champion before it answers again. Again goes back further.

    As for a promotion it is made ready before, where that can be; where it cannot, this is done all the same.
    """
    reason = undo.reason if undo is not None else ""
    promotions = await anyio.to_thread.run_sync(here.store.promotions, name)
    with suppress(ServiceError):
        for version in standing(promotions[::-1])[-2:-1]:
            await (here.replicas or here.predictors).ready(name, version)

    def change() -> Promotion:
        return here.store.roll_back(name, at=here.clock.now(), by=_asker(request), reason=reason)

    promotion = await anyio.to_thread.run_sync(change)
    here.predictors.forget(name)
    return PromotionView.model_validate(promotion)


def _asker(request: Request) -> str:
    key = request.scope.get("state", {}).get("key")
    return f"{key.id} ({key.name})" if key is not None else "anonymous"
