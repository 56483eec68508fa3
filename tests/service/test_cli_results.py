"""The commands that show what a sweep found."""

from __future__ import annotations

import json
from typing import Any

from service.cli import text
from service.domain import Measurement
from tests.service.api.test_pages import SEVERAL, complete


def test_curves_are_drawn_in_lines(service: Any, run: Any) -> None:
    """A line a trial and metric, on one scale; NaN is a dot, and the numbers beside it say how far it went."""
    sweep = service.running()
    service.trial(sweep, 0)
    for step, value in enumerate([0.0, 0.5, 1.0], 2):
        measurement = Measurement(
            trial_id=f"{sweep.id}-0000", step=step, at=service.clock.now(), metrics={"validation/accuracy": value}
        )
        service.store.add_measurement(measurement)
    service.trial(sweep, 1, value=0.5)
    status, out, _ = run("curves", sweep.id)
    assert status == 0
    assert out.splitlines()[3].split()[3:] == ["validation/accuracy", "▅", "0.5", "0.5", "0.5"]
    assert out.splitlines()[2].split() == [
        f"{sweep.id}-0000", "running", "4", "validation/accuracy", "·▁▅█", "0", "1", "1",
    ]  # fmt: skip
    curve, _ = json.loads(run("curves", sweep.id, "--json", "--points", "2", "--metric", "validation/accuracy")[1])
    assert curve["steps"] == [2, 4]
    status, _, err = run("curves", sweep.id, "--metric", "accuracy")
    assert (status, "none of these trials reports 'accuracy'" in err) == (1, True)


def test_importance_is_told_with_what_it_rests_on(service: Any, run: Any) -> None:
    """Shares, largest first, and the number of points; too few are one clear line."""
    sweep = service.running(search={"trials": 20})
    for number in range(7):
        service.trial(sweep, number, value=0.1 * number)
    assert run("importance", sweep.id) == (
        1,
        "",
        f"sweepserve: need 8 completed points to tell what matters, sweep {sweep.id} has 7\n",
    )
    for number in range(7, 9):
        service.trial(sweep, number, value=0.1 * number)
    status, out, _ = run("importance", sweep.id)
    assert (status, out.splitlines()[2].split()[:2]) == (0, ["train.learning_rate", "100.0%"])
    assert out.splitlines()[-1] == "shares in the spread of validation/accuracy among 9 completed points"
    assert json.loads(run("importance", sweep.id, "--json")[1])["points"] == 9


def test_the_pareto_front_is_listed(service: Any, run: Any) -> None:
    """Only what no other point beats; a sweep with one objective is told that it has none."""
    sweep = service.running(objectives=SEVERAL)
    for number, values in enumerate([(0.5, 10.0), (0.75, 30.0), (0.4, 20.0)]):
        complete(service, sweep, number, *values)
    status, out, _ = run("pareto", sweep.id)
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [["1", f"{sweep.id}-0001"], ["1", f"{sweep.id}-0000"]]
    assert [point["number"] for point in json.loads(run("pareto", sweep.id, "--json")[1])] == [1, 0]
    status, _, err = run("pareto", service.running().id)
    assert (status, "need a sweep with several objectives" in err) == (1, True)


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    """Whatever is in it."""
    assert text.sparkline([0, 7], low=0, high=7) == "▁█"
    assert text.sparkline([0.5, 0.5], low=0.5, high=0.5) == "▁▁"
    assert text.sparkline(["NaN", None, 1.0], low=0, high=1) == "··█"
    assert text.sparkline([], low=0.0, high=0.0) == ""
