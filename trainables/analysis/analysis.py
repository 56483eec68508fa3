"""What an analysis of trained models gives: pictures to look at, and the numbers they show."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


@final
@dataclass(frozen=True, slots=True)
class Analysis:
    """The result of one analysis."""

    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by name, without the ending."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Everything the pictures show, as plain data (JSON types only)."""


def png(figure: Figure) -> bytes:
    """A matplotlib figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight")
    return file.getvalue()
