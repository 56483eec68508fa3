"""Where a camera was and how it was turned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from trainables.config import setting
from trainables.tasks.task import Better, Task

POSITION = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoseRegression(Task):
    """A position in metres and a unit quaternion, scalar first: seven numbers an image, float32 `[n, 7]`.

    The loss is that of PoseNet (Kendall et al. 2015, equation 2) with mean squares in the place of norms, as in the
    program of Walch et al. 2017. Errors are medians over a split, as is usual in pose regression.
    """

    METRICS: ClassVar[Mapping[str, Better]] = {"position_error": "min", "orientation_error": "min", "loss": "min"}
    TARGET: ClassVar[str] = "<f4"

    kind: Literal["pose"] = setting("pose", help="tells the tasks apart in files")
    beta: float = setting(1.0, above=0, help="weight of the orientation in the loss, the position's being 1")

    def target_shape(self, input_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The pose."""
        return (self.outputs,)

    @property
    def outputs(self) -> int:
        """Three of the position, four of the quaternion."""
        return POSITION + 4

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of positions, plus beta times that of quaternions."""
        return self._losses(outputs, targets).mean()

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss`; `position_error` in metres; `orientation_error`: the angle between the two rotations, in degrees."""
        outputs = outputs.float()
        found, true = (functional.normalize(poses[:, POSITION:], dim=1) for poses in (outputs, targets))
        # q and -q are one rotation. The chord gives small angles where 2 acos(|q . q'|) has lost them to rounding.
        chord = torch.minimum((found - true).norm(dim=1), (found + true).norm(dim=1))
        return {
            "loss": self._losses(outputs, targets),
            "position_error": (outputs - targets)[:, :POSITION].norm(dim=1),
            "orientation_error": 4 * torch.asin(chord / 2) * (180 / math.pi),
        }

    def summarize(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The mean loss and the median errors."""
        # torch's own median of an even number is the lower of the two in the middle.
        medians = {
            name: float(value.double().quantile(0.5)) if bool(value.isfinite().all()) else math.nan
            for name, value in values.items()
            if name != "loss"
        }
        return {**medians, "loss": float(values["loss"].double().mean())}

    def decode(self, outputs: Tensor) -> dict[str, Tensor]:
        """`position` `[n, 3]` and `orientation`, unit quaternions `[n, 4]`."""
        outputs = outputs.float()
        return {"position": outputs[:, :POSITION], "orientation": functional.normalize(outputs[:, POSITION:], dim=1)}

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """One answer an image: the camera's position in metres, and its orientation as a unit quaternion w, x, y, z."""
        decoded = {name: values.cpu().tolist() for name, values in self.decode(outputs).items()}
        return [
            {"position": position, "orientation": orientation}
            for position, orientation in zip(decoded["position"], decoded["orientation"], strict=True)
        ]

    def mirror(self, targets: Tensor, chosen: Tensor, axis: int) -> Tensor:
        """Not possible. Raises ValueError."""
        raise ValueError("train.flips: need none for poses: no camera sees a mirrored world")

    def caption(self, target: Any) -> str:
        """The position."""
        return " ".join(f"{number:.2f}" for number in target[:POSITION])

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Of each image, `[n]`."""
        squares = (outputs - targets).square()
        return squares[:, :POSITION].mean(dim=1) + self.beta * squares[:, POSITION:].mean(dim=1)
