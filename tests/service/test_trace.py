"""Traces: what is accepted of a stranger, and where they are followed."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import logs, trace

FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def test_a_trace_goes_on_in_a_span_of_our_own() -> None:
    """Its id and flags stay; the span is ours."""
    child = trace.child_of(GIVEN)
    assert FORM.fullmatch(child)
    assert trace.trace_id(child) == "0af7651916cd43dd8448eb211c80319c"
    assert child[-2:] == "00"
    assert child[36:52] != GIVEN[36:52]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        GIVEN.upper(),
        GIVEN + "-more",
        "ff" + GIVEN[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        GIVEN + "\n",
        " " + GIVEN,
    ],
)
def test_what_is_no_trace_begins_one(header: str) -> None:
    """As the specification has it: the header is as good as none."""
    made = {trace.child_of(header) for _ in range(2)}
    assert len(made) == 2
    assert all(FORM.fullmatch(one) for one in made)
    assert not any("0af7651916cd43dd8448eb211c80319c" in one for one in made)


def test_a_later_version_may_have_more_at_its_end() -> None:
    """And is taken up as this one."""
    assert trace.trace_id(trace.child_of("01" + GIVEN[2:] + "-more")) == "0af7651916cd43dd8448eb211c80319c"


@given(st.text() | st.from_regex(FORM))
def test_any_header_gives_a_legal_trace(header: str) -> None:
    """Whoever sends it."""
    assert FORM.fullmatch(trace.child_of(header))


def test_lines_for_machines_are_json_with_the_trace() -> None:
    """That of what is being done, else that of the process; a line break in a message stays within its line."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines(GIVEN))
    logger = logging.Logger("service.test")
    logger.addHandler(handler)
    logger.info("two\nlines %s", "é", extra={"data": {"status": 200}})
    with trace.following(trace.child_of("")):
        own = trace.trace_id(trace.current())
        try:
            int("why")
        except ValueError:
            logger.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time") < second.pop("time")
    assert first == {
        "level": "INFO",
        "logger": "service.test",
        "message": "two\nlines é",
        "trace_id": trace.trace_id(GIVEN),
        "status": 200,
    }
    assert (second["message"], second["trace_id"]) == ("failed", own)
    assert second["exception"].endswith("literal for int() with base 10: 'why'")
