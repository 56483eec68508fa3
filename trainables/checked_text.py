"""Texts of a spec that mean more than their letters, checked where they are read."""

from __future__ import annotations

import re
from abc import ABC
from pathlib import Path
from typing import ClassVar, Self, final


class CheckedText(str, ABC):
    """Base of texts with a rule of their own; a config's field may have such a type.

    Raises:
        ValueError: on making, with the rule and the text.
    """

    __slots__ = ()
    PATTERN: ClassVar[str]
    """A regular expression that fits the whole text, in what Python's and JSON Schema's dialects share."""
    RULE: ClassVar[str]
    """The same in words, after "need"."""

    def __new__(cls, text: str) -> Self:
        """The checked text."""
        if not re.search(cls.PATTERN, text):
            raise ValueError(f"need {cls.RULE}, got {text!r}")
        return super().__new__(cls, text)


PATH = r"(?!\.{1,2}(?:/|$))[^/\\:\x00-\x1f]+(?:/(?!\.{1,2}(?:/|$))[^/\\:\x00-\x1f]+)*"
"""A relative path of one part or more."""


@final
class RelativePath(CheckedText):
    """A path below a folder that the reader knows, its parts joined by `/`; empty: none.

    A spec is data that strangers may send: it names files only by such paths, and by nothing that could be taken for
    another place (an absolute path, `..`, a URL, a Windows drive).
    """

    __slots__ = ()
    PATTERN = rf"^(?:{PATH})?(?![\s\S])"
    RULE = "a relative path, without '..', colons and backslashes"

    def below(self, folder: Path) -> Path:
        """The path in that folder, its links followed; it need not exist.

        Raises:
            ValueError: a link on the way leads out of the folder.
        """
        return confined(folder / self, folder)


def confined(path: Path, folder: Path) -> Path:
    """The path with its links followed.

    Raises:
        ValueError: it is not in the folder.
    """
    resolved, root = path.resolve(), folder.resolve()
    if not resolved.is_relative_to(root):
        raise ValueError(f"{path} leads out of {root}")
    return resolved
