"""Networks translated by torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainables.compiled import compile_network, eagerly


class Own(nn.Module):
    """A network of a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One layer."""
        result: torch.Tensor = self.layer(x)
        return result


@pytest.mark.parametrize("make", [Own, lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU())], ids=["own", "sequential"])
def test_a_network_is_translated_whatever_its_class(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and not where it is called eagerly; the numbers stay."""
    translated: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        translated.append(graph)
        return graph

    monkeypatch.setattr("trainables.compiled.BACKEND", backend)
    network, x = make(), torch.rand(4, 3)
    wanted = network(x)
    compile_network(network, "on", torch.device("cpu"))
    with eagerly("on"):
        assert torch.equal(network(x), wanted)
    assert not translated
    for _ in range(2):
        torch.testing.assert_close(network(x), wanted)
    assert len(translated) == 1
