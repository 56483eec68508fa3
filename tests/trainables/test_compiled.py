"""Networks translated by torch.compile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
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


@pytest.mark.parametrize(("device", "variable", "named"), [("cpu", "CXX", r"g\+\+"), ("cuda", "CC", "gcc or clang")])
def test_a_machine_without_a_compiler_is_told_before_anything_is_trained(
    device: str, variable: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the setting, what is missing and where; the variable names another compiler."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ValueError, match=rf"^train\.compile: need off, or {named} on the machine .*{variable}.*got on"):
        compile_network(Own(), "on", torch.device(device))
    compile_network(Own(), "off", torch.device(device))
    monkeypatch.setenv(variable, "my-compiler")
    with pytest.raises(ValueError, match="need off, or my-compiler on the machine"):
        compile_network(Own(), "on", torch.device(device))


SCRIPT = """
import torch
from trainables.compiled import compile_network

network, x = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), torch.rand(4, 3)
wanted = network(x)
gradients = torch.autograd.grad(wanted.sum(), list(network.parameters()))
compile_network(network, "on", torch.device("cpu"))
got = network(x)
torch.testing.assert_close(got, wanted)
torch.testing.assert_close(torch.autograd.grad(got.sum(), list(network.parameters())), gradients)
"""


@pytest.mark.slow
@pytest.mark.skipif("SWEEPSERVE_LONG_TESTS" not in os.environ, reason="takes half a minute; SWEEPSERVE_LONG_TESTS=1")
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a C++ compiler: g++, or that of CXX")
def test_a_network_is_brought_to_machine_code_and_computes_the_same(tmp_path: Path) -> None:
    """Forwards and backwards, in a process of its own, as inductor starts others."""
    inductor = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    environment = {**os.environ, **inductor, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, timeout=300)
    assert list(tmp_path.rglob("*.so"))
