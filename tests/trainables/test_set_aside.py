"""Imports without a look for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from trainables.set_aside import set_aside


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What a test sets aside is given back."""
    collecting = gc.isenabled()
    yield
    gc.unfreeze()
    if collecting:
        gc.enable()


@pytest.mark.parametrize("collecting", [True, False])
def test_nothing_is_collected_meanwhile_and_all_is_as_before_after(collecting: bool) -> None:
    """Also after an import that fails; who does without the collector keeps doing so."""
    if not collecting:
        gc.disable()
    meanwhile = []
    with suppress(ImportError), set_aside():
        meanwhile.append(gc.isenabled())
        raise ImportError
    assert meanwhile == [False]
    assert gc.isenabled() is collecting


def test_what_was_made_meanwhile_is_looked_through_no_more() -> None:
    """It is in none of the generations that a collection goes through."""
    with set_aside():
        made: list[object] = []
    assert not any(one is made for one in gc.get_objects())
    later: list[object] = []
    assert any(one is later for one in gc.get_objects())
