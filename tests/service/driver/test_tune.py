"""What of ours Tune could write down in its snapshots, and what no cluster can give it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from ray import cloudpickle
from ray.exceptions import RayTaskError

from service.driver.tune import _Judge, _Suggest, _Watch, out_of_memory
from service.plan import Resources


class Secret:
    """Stands where the run and its store are; it must not be reached by a pickler."""

    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_snapshots_hold_nothing_of_the_run(dumps: Any) -> None:
    """Tune pickles its searcher, stopper and callbacks: that neither fails nor reaches the store and its URL."""
    run: Any = Secret()
    for ours in (_Suggest(run, Resources(), {}), _Judge(run, _Watch(run), {}), _Watch(run)):
        assert vars(pickle.loads(dumps(ours))) == {}  # noqa: S301 - what was dumped a moment ago


def test_want_of_memory_is_told_from_other_errors() -> None:
    """As Python, PyTorch and Ray say it, themselves or through a task that they happened in."""
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as pythons:
        bytearray(2**62)
    for error in (torchs.value, pythons.value, torch.OutOfMemoryError("CUDA out of memory")):
        assert out_of_memory(error)
        assert out_of_memory(RayTaskError("f", str(error), error))
        assert out_of_memory(str(error)) or isinstance(error, MemoryError | torch.OutOfMemoryError)
    assert not out_of_memory(RuntimeError("shapes do not fit"))
    assert not out_of_memory("the worker died")
