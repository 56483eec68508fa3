"""Leases: one holder at a time."""

from __future__ import annotations

from service.port_values import Lease
from service.ports import Store
from tests.contracts.store_samples import together


def test_a_lease_goes_to_who_knows_how_it_is(store: Store) -> None:
    """Each taking raises its beat; who knows an older state of it is told the present one. Names are apart."""
    first = store.take_lease("a", holder="one", after=None)
    assert first == Lease(holder="one", beat=1)
    assert store.take_lease("a", holder="two", after=None) == first
    second = store.take_lease("a", holder="one", after=first)
    assert second == Lease(holder="one", beat=2)
    assert store.take_lease("a", holder="two", after=first) == second
    assert store.take_lease("a", holder="two", after=second) == Lease(holder="two", beat=3)
    assert store.take_lease("b", holder="one", after=None) == Lease(holder="one", beat=1)


def test_a_lease_that_is_not_there_cannot_be_renewed(store: Store) -> None:
    """There is none before and none after."""
    assert store.take_lease("a", holder="one", after=Lease(holder="one", beat=7)) is None
    assert store.take_lease("a", holder="one", after=None) == Lease(holder="one", beat=1)


def test_of_many_takers_one_has_it(store: Store) -> None:
    """Of a new lease, and of one that all saw alike; everyone is told who."""
    seen: Lease | None = None
    for _ in range(5):
        taken = together(
            *(
                lambda who=who, seen=seen: store.take_lease("a", holder=who, after=seen)
                for who in ("one", "two", "three")
            )
        )
        assert len(set(map(repr, taken))) == 1
        assert isinstance(taken[0], Lease)
        assert taken[0].beat == (seen.beat if seen else 0) + 1
        seen = taken[0]
