"""The drawing parameters of a Pathfinder image, and the named sets of them that were published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

from trainables.config import Config, setting


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Frame(Config):
    """Sizes in pixels of the drawn image; the defaults are those of the papers (Linsley et al. 2018 and after)."""

    window: int = setting(300, at_least=16, at_most=4096, help="rows and columns of the drawn image")
    padding: int = setting(22, at_least=1, help="border that no paddle's head enters")
    antialias: int = setting(2, at_least=1, at_most=8, help="shapes are drawn this many times larger, then shrunk")
    seed_distance: int = setting(27, at_least=1, help="between the first ends of the two paths")
    marker_radius: float = setting(5.0, above=0, help="of the discs at the ends")
    paddle_length: int = setting(5, at_least=1, help="of one dash")
    paddle_thickness: float = setting(2.0, above=0, help="of one dash")
    paddle_margins: tuple[int, ...] = setting((3,), at_least=1, help="kept free around a dash; one is drawn an image")
    continuity: float = setting(1.8, above=0, help="straightness: a turn t weighs cos(continuity t) squared")
    contrast: float = setting(1.0, above=0, help="grey of a dash, where a marker has 1")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Shapes are whole numbers of enlarged pixels, and the two paths have somewhere to begin."""
        for name in ("paddle_thickness", "marker_radius"):
            enlarged = getattr(self, name) * self.antialias
            if enlarged != int(enlarged):
                yield name, f"need a whole number when multiplied by antialias {self.antialias}, got {enlarged:g}"
        if not self.paddle_margins:
            yield "paddle_margins", "need one or more, got none"
        if self.window <= 4 * self.seed_distance:
            yield (
                "window",
                f"need > 4 * seed_distance = {4 * self.seed_distance}, or paths have nowhere to begin, "
                f"got {self.window}",
            )
        if self.window <= 2 * self.padding:
            yield "window", f"need > 2 * padding = {2 * self.padding}, got {self.window}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A published set of parameters."""

    frame: Frame
    distractors: int | None = None
    """How many; none: as many as `budget` allows."""
    budget: int = 30
    """Paddles of all distractors together."""
    image_size: int
    """Rows and columns of the finished image."""

    def distractors_of(self, length: int) -> int:
        """How many distractors of this length an image has."""
        return self.distractors if self.distractors is not None else self.budget // length


# The papers' program sets the number of distractors once, for length 2, and draws 15 at every difficulty.
PRESETS: Mapping[str, Preset] = {
    "papers": Preset(frame=Frame(), distractors=15, image_size=150),
    "lra_32": Preset(
        frame=Frame(
            window=32, padding=1, seed_distance=7, marker_radius=1.5, paddle_length=2, paddle_thickness=0.5,
            paddle_margins=(1,), continuity=1.0, contrast=1.5,
        ),
        budget=20,
        image_size=32,
    ),
    "lra_64": Preset(
        frame=Frame(
            window=64, padding=1, seed_distance=12, marker_radius=2.5, paddle_thickness=1.0, paddle_margins=(1,),
            contrast=0.8,
        ),
        budget=22,
        image_size=64,
    ),
    "lra_128": Preset(
        frame=Frame(
            window=128, padding=1, seed_distance=20, marker_radius=3.0, paddle_thickness=1.5, paddle_margins=(2, 3),
            contrast=0.9,
        ),
        budget=35,
        image_size=128,
    ),
    "lra_256": Preset(frame=Frame(window=256), budget=30, image_size=256),
}  # fmt: skip
