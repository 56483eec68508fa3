"""Promotions: which version of a model is its champion, and since when."""

from __future__ import annotations

import pytest

from service.domain import as_data
from service.errors import Conflict, NotFound
from service.ports import Store
from tests.contracts.store_samples import NOW, add_sweep, add_trial, kinds, offer, together


def test_a_person_may_choose_the_champion_and_undo_it(store: Store) -> None:
    """Each change is kept with who and why; undoing goes back one promotion that stands, again one further."""
    sweep = add_sweep(store)
    versions = [offer(store, add_trial(store, sweep, number)) for number in range(3)]
    assert store.champion("digits") == versions[2]
    promoted = store.promote("digits", 1, at=NOW, by="ada", reason="calmer")
    assert (promoted.number, promoted.version, promoted.kind, promoted.by, promoted.reason) == (
        4, 1, "promoted", "ada", "calmer",
    )  # fmt: skip
    assert store.champion("digits") == versions[0]
    assert store.models() == [versions[0]]
    assert store.model_versions("digits") == versions[::-1]
    assert store.events(sweep.id)[-1].data == {**as_data(versions[0]), "promotion": 4}
    back = [store.roll_back("digits", at=NOW, by="bo").version for _ in range(3)]
    assert back == [3, 2, 1]
    with pytest.raises(Conflict, match="had no other champion before version 1"):
        store.roll_back("digits", at=NOW)
    kinds_of = [promotion.kind for promotion in store.promotions("digits")]
    assert kinds_of == ["rolled back"] * 3 + ["promoted"] + ["registered"] * 3


def test_promoting_the_champion_changes_nothing(store: Store) -> None:
    """No event, no promotion; and what is not there cannot be promoted."""
    sweep = add_sweep(store)
    version = offer(store, add_trial(store, sweep, 0))
    assert store.promote("digits", 1, at=NOW) == store.promotions("digits")[0]
    assert len(store.promotions("digits")) == 1
    assert kinds(store, sweep).count("model") == 1
    assert store.champion("digits") == version
    for change in (
        lambda: store.promote("digits", 2, at=NOW),
        lambda: store.promote("nobody", 1, at=NOW),
        lambda: store.roll_back("nobody", at=NOW),
        lambda: store.champion("nobody"),
    ):
        with pytest.raises(NotFound):
            change()
    assert store.promotions("nobody") == []


def test_changes_of_a_champion_at_once_are_numbered_one_by_one(store: Store) -> None:
    """However many threads promote, each promotion has a number of its own and the last one holds."""
    sweep = add_sweep(store)
    for number in range(4):
        offer(store, add_trial(store, sweep, number))
    together(*(lambda version=version: store.promote("digits", version, at=NOW) for version in (1, 2, 3) * 2))
    promotions = store.promotions("digits")
    assert [promotion.number for promotion in promotions] == list(range(len(promotions), 0, -1))
    assert store.champion("digits").version == promotions[0].version


def test_promotions_go_on_counting_when_sweeps_are_deleted(store: Store) -> None:
    """Whoever has seen a number sees larger ones only, and is told when another version has become the champion."""
    first, second, third = (add_sweep(store, f"sweep{number}") for number in range(3))
    for sweep in (first, second, second, third):
        offer(store, add_trial(store, sweep, store.sweep(sweep.id).last_event))
    store.delete_sweep(first.id)
    assert [(one.number, one.version) for one in store.promotions("digits")] == [(4, 4), (3, 3), (2, 2)]
    assert kinds(store, second).count("model") == 2
    store.delete_sweep(third.id)
    assert [(one.number, one.version) for one in store.promotions("digits")] == [(5, 3), (2, 2)]
    assert store.events(second.id)[-1].data == {**as_data(store.champion("digits")), "promotion": 5}
    assert store.promote("digits", 2, at=NOW).number == 6
    assert store.roll_back("digits", at=NOW).number == 7
    again = offer(store, add_trial(store, second, 9), after=7)
    assert (store.champion("digits"), store.promotions("digits")[0].number) == (again, 8)
    store.delete_sweep(second.id)
    assert store.promotions("digits") == []


def test_a_deleted_version_that_somebody_chose_leaves_the_newest_one(store: Store) -> None:
    """Nothing that stands is left: what was rolled back to is gone, and what it undid."""
    kept, gone = add_sweep(store, "kept2222"), add_sweep(store, "gone2222")
    for sweep in (gone, kept):
        offer(store, add_trial(store, sweep))
    store.roll_back("digits", at=NOW)
    store.delete_sweep(gone.id)
    assert [(one.number, one.version, one.kind) for one in store.promotions("digits")] == [(4, 2, "registered")]
    assert store.events(kept.id)[-1].data["promotion"] == 4


def test_a_version_that_is_champion_before_and_after_a_deleted_one_is_so_once(store: Store) -> None:
    """Its newest promotion is left, which nobody is told again, and there is no other champion to go back to."""
    kept, gone = add_sweep(store, "kept2222"), add_sweep(store, "gone2222")
    for sweep in (kept, gone):
        offer(store, add_trial(store, sweep))
    store.promote("digits", 1, at=NOW)
    before = store.events(kept.id)
    store.delete_sweep(gone.id)
    assert [(one.number, one.version, one.kind) for one in store.promotions("digits")] == [(3, 1, "promoted")]
    assert store.events(kept.id) == before
    with pytest.raises(Conflict, match="had no other champion before version 1"):
        store.roll_back("digits", at=NOW)


def test_a_champion_again_by_a_rollback_stays_so_when_the_other_one_is_deleted(store: Store) -> None:
    """Under the number that it has: no event."""
    kept, gone = add_sweep(store, "kept2222"), add_sweep(store, "gone2222")
    for sweep in (kept, gone):
        offer(store, add_trial(store, sweep))
    store.roll_back("digits", at=NOW)
    before = store.events(kept.id)
    store.delete_sweep(gone.id)
    assert [(one.number, one.version) for one in store.promotions("digits")] == [(3, 1)]
    assert store.events(kept.id) == before
