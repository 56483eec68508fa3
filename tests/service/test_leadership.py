"""Of several processes over one store, exactly one acts."""

from __future__ import annotations

import subprocess
import sys

from service.adapters.memory_store import MemoryStore
from service.leadership import BELIEF, NAME, PATIENCE, Leader


class Watch:
    """A watch that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def beat(seconds: float, watch: Watch, *leaders: Leader) -> None:
    """So much time, with a beat of each every half second."""
    for _ in range(round(2 * seconds)):
        watch.now += 0.5
        for leader in leaders:
            leader.renew()


def test_the_first_one_acts_as_long_as_it_beats() -> None:
    """The other one waits, and does nothing."""
    store, watch = MemoryStore(), Watch()
    first, second = Leader(store, watch=watch), Leader(store, watch=watch)
    done: list[str] = []
    first.alone(lambda: done.append("first"))()
    second.alone(lambda: done.append("second"))()
    assert done == ["first"]
    beat(3 * PATIENCE, watch, first, second)
    assert (first.leads, second.leads) == (True, False)


def test_a_dead_one_is_followed_after_a_while() -> None:
    """And not sooner than it would itself have stopped to act."""
    store, watch = MemoryStore(), Watch()
    first, second = Leader(store, watch=watch), Leader(store, watch=watch)
    beat(1, watch, first, second)
    beat(BELIEF + 0.5, watch, second)
    assert (first.leads, second.leads) == (False, False)
    beat(PATIENCE - BELIEF, watch, second)
    assert second.leads
    first.renew()
    assert not first.leads
    beat(3 * PATIENCE, watch, first, second)
    assert (first.leads, second.leads) == (False, True)


def test_one_that_resigns_is_followed_at_once() -> None:
    """Also by a process that starts only then."""
    store, watch = MemoryStore(), Watch()
    first, second = Leader(store, watch=watch), Leader(store, watch=watch)
    beat(1, watch, first, second)
    first.resign()
    second.renew()
    second.renew()
    assert (first.leads, second.leads) == (False, True)


def test_of_two_that_wait_for_a_dead_one_one_follows() -> None:
    """Whoever comes first with the beat that both saw."""
    store, watch = MemoryStore(), Watch()
    dead, one, two = (Leader(store, watch=watch) for _ in range(3))
    beat(1, watch, dead, one, two)
    beat(PATIENCE + 1, watch, one, two)
    assert (one.leads, two.leads) == (True, False)


def test_one_that_is_seen_to_be_dead_is_followed_at_once() -> None:
    """A process of this machine that has ended will not act again; nobody waits for its beat."""
    store, watch = MemoryStore(), Watch()
    said = "from service.processes import name_of_this; print(name_of_this())"
    asked = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    store.take_lease(NAME, holder=f"{asked.stdout.strip()}:0", after=None)
    second = Leader(store, watch=watch)
    second.renew()
    second.renew()
    assert second.leads
