"""Claims: what idempotency keys stand for."""

from __future__ import annotations

from datetime import timedelta

from service.port_values import Claim
from service.ports import Store
from tests.contracts.store_samples import NOW, claim, together

EXPIRED = NOW - timedelta(days=1)


def test_the_first_claim_of_a_key_holds(store: Store) -> None:
    """Later ones are given it, whatever they would have made; each key by itself."""
    first = claim("one", age=5)
    assert store.claim(first, expired_before=EXPIRED) == first
    assert store.claim(claim("one", sweep_id="bbbb2222", fingerprint="0" * 64), expired_before=EXPIRED) == first
    other = claim("two", sweep_id="cccc2222")
    assert store.claim(other, expired_before=EXPIRED) == other


def test_a_claim_expires(store: Store) -> None:
    """Its key is then free; one exactly at the limit still holds."""
    limit = claim("limit", age=86400)
    store.claim(limit, expired_before=EXPIRED)
    assert store.claim(claim("limit", sweep_id="bbbb2222"), expired_before=EXPIRED) == limit
    store.claim(claim("old", age=86401), expired_before=NOW - timedelta(days=2))
    new = claim("old", sweep_id="bbbb2222")
    assert store.claim(new, expired_before=EXPIRED) == new


def test_a_claim_is_looked_up(store: Store) -> None:
    """Without claiming the key; one that has expired is none, though it has not been forgotten yet."""
    assert store.claimed("key", since=EXPIRED) is None
    limit = store.claim(claim(age=86400), expired_before=EXPIRED)
    assert store.claimed("key", since=EXPIRED) == limit
    assert store.claimed("key", since=EXPIRED + timedelta(seconds=1)) is None


def test_of_claims_that_come_at_once_one_holds(store: Store) -> None:
    """Every caller is given the same one."""
    for round_ in range(5):
        claims = [claim(f"race{round_}", sweep_id=f"sweep{number}") for number in range(4)]
        held = together(*(lambda one=one: store.claim(one, expired_before=EXPIRED) for one in claims))
        assert all(isinstance(one, Claim) for one in held)
        assert len({one.sweep_id for one in held if isinstance(one, Claim)}) == 1
