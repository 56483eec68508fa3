"""The model families: what a sweep may search."""

from __future__ import annotations

from fastapi import APIRouter

from search_spaces import default_space
from service.api.views import Families, FamilySummary, FamilyView, summary_of
from service.errors import NotFound
from trainables.config import nearest
from trainables.families import FAMILIES
from trainables.train_config import TrainConfig

router = APIRouter(prefix="/v1/families", tags=["families"])


@router.get("")
def list_families() -> Families:
    """Every model family."""
    return Families(families=[FamilySummary(name=name, summary=summary_of(kind)) for name, kind in FAMILIES.items()])


@router.get("/{name}")
def get_family(name: str) -> FamilyView:
    """What can be set in a trial of a family, and what a sweep of it searches by default."""
    if name not in FAMILIES:
        raise NotFound(f"there is no family {name!r}; {nearest(name, list(FAMILIES))}")
    return FamilyView(
        name=name,
        summary=summary_of(FAMILIES[name]),
        model=FAMILIES[name].json_schema(),
        train=TrainConfig.json_schema(),
        space=default_space(name).to_dict(),
    )
