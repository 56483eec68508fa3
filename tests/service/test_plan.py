"""Parts of a plan: times, and what fits where."""

from __future__ import annotations

from typing import Any

import pytest

from service.plan import Resources, Stop


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("45s", 45), ("1h30m", 5400), ("1h1m1s", 3661), (None, None)],
)
def test_a_time_budget_is_read_in_seconds(text: str | None, seconds: int | None) -> None:
    """Hours, minutes and seconds add up."""
    assert Stop(time_budget=text).time_budget_seconds == seconds


@pytest.mark.parametrize("text", ["", "0s", "h", "30", "-1h", "1.5h", "30m1h", "1h 30m", "²h", "9999999h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A budget that ends a sweep at once, or never, is no budget."""
    with pytest.raises(ValueError, match="time_budget: need a time such as 2h"):
        Stop(time_budget=text)


def _node(cpus: float, gpus: float = 0) -> dict[str, float]:
    """A node as Ray describes it, which leaves out what it has none of."""
    return {"CPU": cpus, **({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("nodes", "resources", "reason", "room"),
    [
        ([_node(2)], Resources(), None, 2),
        ([_node(2), _node(3)], Resources(max_concurrent=4), None, 4),
        ([_node(2)], Resources(max_concurrent=4), None, 2),
        ([_node(1), _node(4, 1)], Resources(cpus=4, gpus=0.25), None, 1),
        ([_node(8, 1)], Resources(gpus=0.3), None, 3),
        ([_node(2), _node(2)], Resources(gpus=1), "a trial needs 1 GPU; the largest node has 0", 0),
        ([_node(2), _node(2)], Resources(cpus=3), "a trial needs 3 CPU; the largest node has 2", 0),
        ([_node(8), _node(1, 2)], Resources(cpus=4, gpus=2), "a trial needs 4 CPU and 2 GPU; no node has both", 0),
        ([], Resources(), "a trial needs 1 CPU; the largest node has 0", 0),
    ],
)
def test_a_trial_fits_where_one_node_can_hold_it(
    nodes: Any, resources: Resources, reason: str | None, room: int
) -> None:
    """Nodes do not add up, since a trial runs on one; and a sweep takes no more than it may."""
    assert resources.misfit(nodes) == reason
    assert resources.room(nodes) == room
