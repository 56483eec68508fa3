"""What of ours Tune could write down in its snapshots, and what no cluster can give it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from ray import cloudpickle

from service.driver.tune import _Judge, _Suggest, _Watch, misfit
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


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    """A node as Ray describes it, which leaves out what it has none of."""
    return {"Alive": alive, "Resources": {"CPU": cpus, **({"GPU": gpus} if gpus else {})}}


@pytest.mark.parametrize(
    ("nodes", "resources", "reason"),
    [
        ([node(2)], Resources(), None),
        ([node(1), node(4, 1)], Resources(cpus=4, gpus=0.25), None),
        ([node(2), node(2)], Resources(gpus=1), "a trial needs 1 GPU; the largest node has 0"),
        ([node(2), node(2)], Resources(cpus=3), "a trial needs 3 CPU; the largest node has 2"),
        ([node(2), node(2, 1, alive=False)], Resources(gpus=0.5), "a trial needs 0.5 GPU; the largest node has 0"),
        ([node(8), node(1, 2)], Resources(cpus=4, gpus=2), "a trial needs 4 CPU and 2 GPU; no node has both"),
        ([], Resources(), "a trial needs 1 CPU; the largest node has 0"),
    ],
)
def test_a_trial_fits_where_one_living_node_can_hold_it(nodes: Any, resources: Resources, reason: str | None) -> None:
    """Nodes do not add up, since a trial runs on one; dead ones do not count."""
    assert misfit(nodes, resources) == reason
