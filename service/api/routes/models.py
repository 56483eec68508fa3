"""Models: what sweeps found, and which version of each is its champion."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Request
from pydantic import Field

from service.api.parts import Here
from service.api.views import Models, ModelView, Promotions, PromotionView, View
from service.domain import Promotion

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(here: Here) -> Models:
    """The champion of every model."""
    return Models(models=[ModelView.model_validate(version) for version in here.store.models()])


@router.get("/{name}/promotions")
def list_promotions(name: str, here: Here) -> Promotions:
    """Every change of the model's champion, newest first: when, how, by whom and why."""
    here.store.champion(name)
    return Promotions(promotions=[PromotionView.model_validate(one) for one in here.store.promotions(name)])


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

    It is in memory before it answers, so that no request waits for it.
    """
    await (here.replicas or here.predictors).model(name, wish.version)

    def change() -> Promotion:
        return here.store.promote(name, wish.version, at=here.clock.now(), by=_asker(request), reason=wish.reason)

    promotion = await anyio.to_thread.run_sync(change)
    here.predictors.forget(name)
    return PromotionView.model_validate(promotion)


@router.post("/{name}/rollback")
async def roll_back(name: str, request: Request, here: Here, undo: Undo | None = None) -> PromotionView:
    """Undoes the last promotion that stands: the champion before it answers again. Again goes back further."""
    reason = undo.reason if undo is not None else ""

    def change() -> Promotion:
        return here.store.roll_back(name, at=here.clock.now(), by=_asker(request), reason=reason)

    promotion = await anyio.to_thread.run_sync(change)
    here.predictors.forget(name)
    return PromotionView.model_validate(promotion)


def _asker(request: Request) -> str:
    key = request.scope.get("state", {}).get("key")
    return f"{key.id} ({key.name})" if key is not None else "anonymous"
