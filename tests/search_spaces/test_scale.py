"""Specs cut down to a small machine."""

from __future__ import annotations

import pytest

from search_spaces import full, scaled

DOCUMENT = {
    "name": "study",
    "data": {"name": "pathfinder", "path_length": 14, "image_size": 150},
    "space": {"train.batch_size": {"kind": "choice", "values": [64, 196]}, "train.learning_rate": {"kind": "float"}},
    "scale": {"data": {"image_size": 32}, "space": {"train.learning_rate": None}, "search": {"trials": 2}},
}


def test_a_scale_replaces_what_it_names_and_leaves_the_rest() -> None:
    """It is a merge patch: mappings merge, null removes, everything else replaces."""
    assert scaled(DOCUMENT) == {
        "name": "study",
        "data": {"name": "pathfinder", "path_length": 14, "image_size": 32},
        "space": {"train.batch_size": {"kind": "choice", "values": [64, 196]}},
        "search": {"trials": 2},
    }
    assert DOCUMENT["data"]["image_size"] == 150


def test_the_full_spec_has_no_scale() -> None:
    """A service need not know of it."""
    assert full(DOCUMENT) == {key: DOCUMENT[key] for key in ("name", "data", "space")}


@pytest.mark.parametrize("scale", [{}, {"scale": None}, {"scale": 2}])
def test_what_has_no_scale_is_not_cut_down(scale: dict[str, object]) -> None:
    """Nobody waits for hours for what should take seconds."""
    with pytest.raises(ValueError, match="need a `scale`"):
        scaled({**full(DOCUMENT), **scale})
