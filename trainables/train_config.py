"""How a model is trained, as settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, final

from trainables.augmentation import Flips
from trainables.compiled import Compile
from trainables.config import Config, setting
from trainables.precision import Precision
from trainables.pull import Pull
from trainables.schedules import Schedule
from trainables.weights_name import WeightsName

CHANGEABLE = (
    "train.learning_rate",
    "train.momentum",
    "train.weight_decay",
    "train.clip_norm",
    "train.pull.start",
    "train.pull.end",
    "train.pull.warmup",
    "train.pull.steps",
    "train.pull.angle",
    "train.pull.rate",
)
"""Settings that may change between two steps of a training: weights fit, and data come in their order, all the same."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(Config):
    """How a model is trained."""

    optimizer: Literal["adam", "adamw", "sgd"] = setting("adam", help="the update rule")
    learning_rate: float = setting(1e-3, above=0, help="step size")
    learning_rates: Mapping[str, float] = setting(
        {}, above=0, help="step sizes of modules by their names in the model (`blocks.0`), where they differ"
    )
    schedule: Schedule = setting(Schedule(), help="how the learning rates change over the training")
    momentum: float = setting(0.9, at_least=0, below=1, help="of SGD; Adam does not use it")
    nesterov: bool = setting(False, help="of SGD: look ahead along the momentum")
    dampening: float = setting(0.0, at_least=0, at_most=1, help="of SGD: share of a gradient kept out of the momentum")
    epsilon: float = setting(1e-8, above=0, help="of Adam: added to the root of the mean square that it divides by")
    weight_decay: float = setting(
        0.0, at_least=0, help="L2 penalty added to the gradient; of adamw: decay apart from the gradient"
    )
    pull: Pull = setting(
        Pull(), help="of families that relax the sharing of weights: how hard they are pulled together"
    )
    clip_norm: float | None = setting(None, above=0, help="largest norm of the gradient as a whole; none: any")
    batch_size: int = setting(196, at_least=1, at_most=65_536, help="images an iteration")
    flips: Flips = setting("none", help="training images are mirrored along these axes, each half of the time")
    precision: Precision = setting(
        "auto",
        help="of convolutions and matrix products in training; auto: bfloat16 where the device has it, else float32; "
        "tfloat32: float32 with shorter products on a GPU",
    )
    compile: Compile = setting(
        "off",
        help="have torch.compile translate the network's training passes: seconds to minutes at each start; "
        "cuda_graphs: and replay them without the CPU, on a GPU; needs g++ where trials run, on GPUs gcc or clang; not "
        "of families that train by parts of their networks",
    )
    max_epochs: int = setting(80, at_least=1, help="passes over the training images, at most")
    max_iterations: int | None = setting(None, at_least=1, help="batches trained, at most; replaces max_epochs")
    validate_every: int | None = setting(None, at_least=1, help="iterations a step; none: a step is an epoch")
    patience: int | None = setting(
        None, at_least=1, help="steps without a better `monitor` before training ends; none: never"
    )
    diagnostics: bool = setting(
        False,
        help="report each layer's gradient in every step: the mean of its norm and of its mean absolute value, and the "
        "peaks of all iterations so far",
    )
    keep: Literal["best", "last"] = setting(
        "best",
        help="the step whose weights are kept: the best by `monitor`, or the last; relaxed sharing of weights keeps "
        "the last either way",
    )
    monitor: str | None = setting(
        None, help="what tells the best step: validation/accuracy, ...; none: the task's first"
    )
    initial_weights: WeightsName | None = setting(
        None,
        help="saved model to start from: sweep:ID (its best trial), trial:ID, model:NAME (its champion) or "
        "model:NAME/VERSION, or the path of a saved model's folder or a safetensors file in the weights folder; "
        "none: random weights",
    )
    seed: int = setting(0, at_least=0, help="of initialisation, data order and augmentation")

    def rules(self) -> Iterator[tuple[str, str]]:
        """Nesterov's momentum needs momentum and no dampening; patience needs a best step."""
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            yield "nesterov", f"needs momentum > 0 and dampening 0, got {self.momentum} and {self.dampening}"
        if self.keep == "last" and self.patience is not None:
            yield "patience", f"need none with keep last, which looks for no better step, got {self.patience}"
