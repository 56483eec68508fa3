"""What of ours Tune could write down in its snapshots."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from ray import cloudpickle

from service.driver.tune import _Judge, _Suggest, _Watch
from service.plan import Resources


class Secret:
    """Stands where the run and its store are; it must not be reached by a pickler."""

    def __reduce__(self) -> Any:
        raise AssertionError("pickled")


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_snapshots_hold_nothing_of_the_run(dumps: Any) -> None:
    """Tune pickles its searcher, stopper and callbacks: that neither fails nor reaches the store and its URL."""
    run: Any = Secret()
    for ours in (_Suggest(run, Resources(), {}), _Judge(run, {}), _Watch(run)):
        assert vars(pickle.loads(dumps(ours))) == {}  # noqa: S301 - what was dumped a moment ago
