"""The commands that show what a sweep found."""

from __future__ import annotations

import json
from typing import Any

from service.cli import text
from service.domain import Measurement, TrialState
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


def test_curves_of_nothing_say_so(service: Any, run: Any) -> None:
    """An empty table alone could mean anything."""
    sweep = service.running()
    assert run("curves", sweep.id)[1].splitlines()[-1] == "nothing has been measured yet"
    assert json.loads(run("curves", sweep.id, "--json")[1]) == []


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
    assert (status, err.count("need a sweep with several objectives")) == (1, 1)


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    """Whatever is in it."""
    assert text.sparkline([0, 7], low=0, high=7) == "▁█"
    assert text.sparkline([0.5, 0.5], low=0.5, high=0.5) == "▁▁"
    assert text.sparkline(["NaN", None, 1.0], low=0, high=1) == "··█"
    assert text.sparkline([], low=0.0, high=0.0) == ""


def test_the_leaderboard_has_the_best_first(service: Any, run: Any) -> None:
    """Ranks, values and points."""
    sweep = service.running()
    for number, value in enumerate([0.5, 0.75, None]):
        service.trial(sweep, number, value=value)
    _, out, _ = run("leaderboard", sweep.id)
    assert [line.split()[:2] for line in out.splitlines()[2:4]] == [
        ["1", f"{sweep.id}-0001"],
        ["2", f"{sweep.id}-0000"],
    ]
    assert [point["number"] for point in json.loads(run("leaderboard", sweep.id, "--json", "--limit", "1")[1])] == [1]


def test_the_leaderboard_of_several_objectives_shows_fronts(service: Any, run: Any) -> None:
    """A column an objective, and the front in place of the rank."""
    few = {"metric": "model/parameters", "mode": "min"}
    sweep = service.running(objectives=[{"metric": "validation/accuracy", "mode": "max"}, few])
    for number, values in enumerate([(0.5, 10.0), (0.75, 30.0), (0.4, 20.0)]):
        trial = service.trial(sweep, number)
        service.store.move_trial(trial.id, TrialState.COMPLETED, at=service.clock.now(), values=values)
    _, out, _ = run("leaderboard", sweep.id)
    header, _, *lines = out.splitlines()
    assert header.split()[:5] == ["front", "trial", "steps", "validation/accuracy", "model/parameters"]
    assert [(line.split()[0], line.split()[3]) for line in lines[:3]] == [("1", "0.75"), ("1", "0.5"), ("2", "0.4")]


def test_the_leaderboard_tells_whose_weights_were_removed(service: Any, run: Any) -> None:
    """Where any were: those can be neither started from nor analyzed."""
    sweep = service.running()
    for number, value in enumerate([0.5, 0.75]):
        trial = service.trial(sweep, number)
        measured = Measurement(trial_id=trial.id, step=2, at=service.clock.now(), metrics={})
        service.store.add_measurement(measured, checkpoint="/there")
        service.store.move_trial(trial.id, TrialState.COMPLETED, at=service.clock.now(), values=(value,))
    assert "weights" not in run("leaderboard", sweep.id)[1]
    assert service.store.forget_checkpoint(f"{sweep.id}-0000")
    _, out, _ = run("leaderboard", sweep.id)
    header, _, first, second = out.splitlines()[:4]
    assert header.split()[4] == "weights"
    assert (first.split()[4], second.split()[4]) == ("kept", "removed")
    shown = service.http.get(f"/v1/sweeps/{sweep.id}/trials").json()["trials"]
    assert [trial["weights"] for trial in shown] == ["removed", "kept"]


def test_the_leaderboard_tells_the_spread_of_repeats(service: Any, run: Any) -> None:
    """Mean, standard deviation, best and number of the trials of each point."""
    sweep = service.running(search={"trials": 2, "repeats": 2, "aggregate": "best"})
    for number, value in enumerate([0.5, 0.75, 0.625]):
        service.trial(sweep, number, value=value)
    _, out, _ = run("leaderboard", sweep.id)
    header, _, first, second = out.splitlines()[:4]
    assert header.split()[4:] == ["mean", "sd", "best", "of", "point"]
    assert first.split()[:9] == ["1", f"{sweep.id}-0000", "...", "1", "0.75", "0.625", "0.1768", "0.75", "2"]
    assert second.split()[:8] == ["2", f"{sweep.id}-0002", "1", "0.625", "0.625", "-", "0.625", "1"]
    assert "of 4, 2 a point" in run("show", sweep.id)[1]
