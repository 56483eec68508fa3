"""Which version of a model is its champion, by the promotions there were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from service.domain import ModelVersion, Promotion


def no_model(name: str) -> str:
    """Why there is no such model, for people."""
    return f"there is no model named {name!r} yet: a sweep of that name registers one as soon as a trial completes"


def standing(promotions: Sequence[Promotion]) -> list[int]:
    """Versions of the promotions, oldest first as given, that were not undone: the last one is the champion's."""
    return [promotion.version for promotion in _not_undone(promotions)]


def without_others(promotions: Sequence[Promotion], versions: Sequence[ModelVersion]) -> list[Promotion]:
    """What is left of a model's promotions when only these of its versions are, oldest first in and out.

    Those that were undone go too, and of several in a row of one version all but the last. Where none is left that
    stands, the newest version is the champion. No number comes twice while there is a model: the champion's promotion
    gets the newest number where it was the champion before, else the one after it.
    """
    newest, numbers = promotions[-1], {version.version for version in versions}
    kept = [promotion for promotion in _not_undone(promotions) if promotion.version in numbers]
    left = [list(same)[-1] for _, same in groupby(kept, key=lambda promotion: promotion.version)]
    if not left and versions:
        last = max(versions, key=lambda version: version.version)
        left = [Promotion(name=last.name, number=0, version=last.version, kind="registered", at=last.created_at)]
    if left:
        left[-1] = replace(left[-1], number=newest.number + (left[-1].version != newest.version))
    return left


def _not_undone(promotions: Sequence[Promotion]) -> list[Promotion]:
    stack: list[Promotion] = []
    for promotion in promotions:
        if promotion.kind == "rolled back":
            stack.pop()
        else:
            stack.append(promotion)
    return stack
