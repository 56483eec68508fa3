"""API keys: what their texts are, and which of them are good."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.access import Scope, is_valid, key_id, new_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_only_the_text_that_was_printed_is_valid() -> None:
    """Not with another secret, not another key's, not a revoked key's, not a text of any other kind."""
    key, text = new_key("ada", [Scope.READ], at=NOW)
    other, others_text = new_key("bob", [Scope.READ], at=NOW)
    assert is_valid(text, key)
    assert key_id(text) == key.id
    for wrong in (others_text, text[:-1], text + "0", "", key.digest, f"sweepserve_{key.id}_", "é"):
        assert not is_valid(wrong, key)
        assert not is_valid(wrong, None)
    assert not is_valid(text, other)
    assert not is_valid(text, replace(key, revoked_at=NOW))


def test_a_key_does_not_hold_its_secret() -> None:
    """What is kept is a digest of it; the secret has 256 bits and no two are the same."""
    made = [new_key("ada", [Scope.READ], at=NOW) for _ in range(20)]
    for key, text in made:
        assert re.fullmatch(r"sweepserve_[a-z2-7]{8}_[0-9a-f]{64}", text)
        assert text.rpartition("_")[2] not in repr(key)
    assert len({text for _, text in made} | {key.digest for key, _ in made}) == 40


@pytest.mark.parametrize("text", ["", "abc", "sweepserve_abc", "other_abc_def", "sweepserve_a_b_c", "sweepserve_é_b"])
def test_other_texts_name_no_key(text: str) -> None:
    """So that the store is not asked for them."""
    assert key_id(text) == ""


def test_admin_may_do_everything() -> None:
    """Other scopes are good for themselves only."""
    admin, reader = (new_key("ada", [scope], at=NOW)[0] for scope in (Scope.ADMIN, Scope.READ))
    assert all(admin.allows([scope]) for scope in Scope)
    assert [scope for scope in Scope if reader.allows([scope])] == [Scope.READ]


@pytest.mark.parametrize(
    ("name", "scopes", "limits", "rule"),
    [
        ("", [Scope.READ], {}, "a name of 1 to 255"),
        (" ", [Scope.READ], {}, "a name of 1 to 255"),
        ("a\nb", [Scope.READ], {}, "printable"),
        ("a" * 256, [Scope.READ], {}, "a name of 1 to 255"),
        ("ada", [], {}, "at least one scope of read, submit, predict, admin"),
        ("ada", [Scope.READ], {"rate": 0}, "a rate from 1 to 2147483647, got 0"),
        ("ada", [Scope.READ], {"max_body_bytes": -1}, "a body limit from 1 to 2147483647, got -1"),
        ("ada", [Scope.READ], {"max_body_bytes": 2**31}, "a body limit from 1 to 2147483647, got 2147483648"),
    ],
)
def test_what_no_key_can_be_is_refused(name: str, scopes: list[Scope], limits: dict[str, int], rule: str) -> None:
    """With the rule and the value."""
    with pytest.raises(ValueError, match=rule):
        new_key(name, scopes, at=NOW, **limits)
