"""How a spec names the weights that a training starts from."""

from __future__ import annotations

from typing import ClassVar, Literal, cast, final

from trainables.checked_text import PATH, CheckedText, RelativePath

ReferenceKind = Literal["sweep", "trial", "model"]
NAME = "[A-Za-z0-9][A-Za-z0-9._-]*"


@final
class WeightsName(CheckedText):
    """A saved model below the weights folder, or a reference: `sweep:ID`, `trial:ID`, `model:NAME[/VERSION]`.

    What a reference refers to, only those know who know sweeps. A sweep means the weights of its best trial, a trial
    those that it kept, a model those of its champion.
    """

    __slots__ = ()
    PATTERN: ClassVar[str] = rf"^(?:{PATH}|(?:sweep|trial):{NAME}|model:{NAME}(?:/[1-9][0-9]{{0,8}})?)(?![\s\S])"
    RULE: ClassVar[str] = (
        "a path relative to the weights folder, without '..', colons and backslashes, "
        "or sweep:ID, trial:ID, model:NAME or model:NAME/VERSION"
    )

    @property
    def reference(self) -> tuple[ReferenceKind, str] | None:
        """What kind of thing it refers to, and the id or name of that; None: it is a path."""
        kind, colon, name = self.partition(":")
        return (cast("ReferenceKind", kind), name) if colon else None

    @property
    def path(self) -> RelativePath:
        """The path that it is.

        Raises:
            ValueError: it is a reference.
        """
        return RelativePath(self)
