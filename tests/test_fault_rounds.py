"""`benchmarks/faults.py` without its tests: which rounds it runs, and what it says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import faults
from benchmarks.faults import FAULTS, Outcome, Round

Run = Callable[..., tuple[list[int], object]]


@pytest.fixture(name="result")
def _result() -> dict[str, Any]:
    """What is in the file of the result."""
    return {}


@pytest.fixture(name="run")
def _run(result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the script: the seeds of the rounds that it began, and what it exited with."""

    def run(*, rounds: int, code: str = "1234abc", becomes: str = "", fails: int = -1, cut_off: int = -1) -> Any:
        seeds = list[int]()

        def one(seed: int) -> Round:
            seeds.append(seed)
            if seed == cut_off:
                raise KeyboardInterrupt
            worst = Outcome("failed", 2.0, "a measurement was lost") if seed == fails else Outcome("survived", 1.5)
            return Round(
                10.0 + seed, {**dict.fromkeys(FAULTS, Outcome("survived", 1.0, "one")), next(iter(FAULTS)): worst}
            )

        def record(name: str, content: dict[str, Any], **_: Any) -> None:
            result.clear()
            result.update(json.loads(json.dumps(content)))

        monkeypatch.setattr(faults, "run_round", one)
        monkeypatch.setattr(faults, "record", record)
        monkeypatch.setattr(faults, "results", lambda name: result)
        monkeypatch.setattr(faults, "code", lambda *_: becomes if becomes and seeds else code)
        monkeypatch.setattr("sys.argv", ["faults.py", "--rounds", str(rounds)])
        with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
            faults.main()
        return seeds, getattr(ended.value, "code", None)

    return run


def test_it_goes_on_where_it_was_cut_off(run: Run, result: dict[str, Any]) -> None:
    """Its rounds are those of all runs together; those of other code, or of code in no commit, are run again."""
    assert run(rounds=4, cut_off=2) == ([0, 1, 2], None)
    before = dict(result["by_seed"])
    assert run(rounds=4) == ([2, 3], 0)
    assert {seed: one for seed, one in result["by_seed"].items() if seed in before} == before
    assert (result["rounds"], result["rounds_in_a_row"], result["failures"]) == (4, 4, 0)
    assert run(rounds=4) == ([], 0)
    assert run(rounds=1, code="5678def") == ([0], 0)
    for code in ("5678def+changes", ""):
        assert [run(rounds=1, code=code)[0] for _ in range(2)] == [[0], [0]]


def test_a_failure_keeps_its_seed_and_ends_the_rounds_in_a_row(run: Run, result: dict[str, Any]) -> None:
    """It is said with its reason, by fault, also by a run that only goes on."""
    assert run(rounds=2, fails=1) == ([0, 1], 1)
    assert run(rounds=4) == ([2, 3], 1)
    assert (result["rounds"], result["rounds_in_a_row"], result["failures"]) == (4, 2, 1)
    first, *others = result["faults"]
    assert first["failures"] == [{"seed": 1, "said": "a measurement was lost"}]
    assert (first["survived"], first["failed"], first["seconds"]["n"]) == (3, 1, 3)
    assert all((one["survived"], one["failed"]) == (4, 0) for one in others)


def test_a_round_through_which_the_code_changed_does_not_count(run: Run, result: dict[str, Any]) -> None:
    """Its drivers ran both."""
    seeds, said = run(rounds=2, becomes="5678def")
    assert (seeds, result) == ([0], {})
    assert "the code became 5678def in this round, and was 1234abc: the round does not count" in str(said)
