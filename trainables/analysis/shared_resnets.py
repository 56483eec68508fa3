"""What the analyses of weight-sharing networks have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainables.models.shared_resnet import SharedResNet
from trainables.saved_model import SavedModel


def networks(models: Sequence[SavedModel]) -> list[tuple[str, SharedResNet]]:
    """The models' modules, each with a name that no other has: how it was trained, as a legend tells it.

    Raises:
        ValueError: a model is of another family.
    """
    named: list[tuple[str, SharedResNet]] = []
    for model in models:
        if not isinstance(model.module, SharedResNet):
            raise ValueError(f"need models of the family shared_resnet, got one of {model.family}")
        named.append((_name(model), model.module))
    times = Counter(name for name, _ in named)
    number: Counter[str] = Counter()
    result = []
    for name, module in named:
        number[name] += 1
        result.append((f"{name} ({number[name]})" if times[name] > 1 else name, module))
    return result


def _name(model: SavedModel) -> str:
    settings = model.trial["model"]  # of the trial: a relaxed network was saved as what it became
    sharing = {"none": "not shared"}.get(settings["sharing"], settings["sharing"])
    return f"{sharing}, stochastic depth" if settings["death_rate"] else sharing
