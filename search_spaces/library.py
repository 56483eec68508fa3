"""The spaces and studies that ship with the package."""

from __future__ import annotations

from functools import cache
from importlib.abc import Traversable
from importlib.resources import files
from typing import Any

from search_spaces.scale import full, scaled
from search_spaces.space import SearchSpace
from search_spaces.yaml_text import read_yaml


@cache
def default_space(family: str) -> SearchSpace:
    """The space that a sweep of this family searches unless it says otherwise.

    Raises:
        LookupError: no family of that name has one.
    """
    return SearchSpace.from_dict(_document(files("search_spaces"), family))


def study(name: str, *, small: bool = False) -> dict[str, Any]:
    """A ready-made sweep spec, as the plain data that a user would POST.

    Args:
        name: of the study.
        small: cut down to a small machine, by the study's own `scale`.

    Raises:
        LookupError: no study has that name.
        ValueError: it is to be small and has no `scale`.
    """
    document: dict[str, Any] = _document(files("search_spaces") / "studies", name)
    return scaled(document) if small else full(document)


def studies() -> list[str]:
    """The names of the ready-made sweep specs."""
    return _names(files("search_spaces") / "studies")


def _document(folder: Traversable, name: str) -> Any:
    names = _names(folder)
    if name not in names:  # this also keeps names like ../x inside the folder
        raise LookupError(f"no {name!r} here; known: {', '.join(names)}")
    return read_yaml((folder / f"{name}.yaml").read_text(encoding="utf-8"))


def _names(folder: Traversable) -> list[str]:
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
