"""The `sweepserve` command against a real server, as a user runs it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from service.cli import text
from service.cli.commands import main
from service.domain import SweepState
from service.errors import Unavailable
from service.port_values import Job
from service.settings import Settings
from tests.service.conftest import save_random_segmenter

HEAVY = {"torch", "ray", "mlflow", "optuna", "fastapi", "sqlalchemy", "cv2", "numpy", "uvicorn"}


def test_sweeps_are_listed(service: Any, run: Any) -> None:
    """As a table, or as the API's JSON; filtered by state."""
    first, second = service.running("first"), service.running("second")
    service.store.move_sweep(first.id, SweepState.COMPLETED, at=service.clock.now())
    service.store.move_sweep(second.id, SweepState.FAILED, at=service.clock.now())
    status, out, _ = run("list")
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()[2:4]] == [
        [second.id, "second", "failed"],
        [first.id, "first", "completed"],
    ]
    found = json.loads(run("list", "--json", "--state", "failed")[1])
    assert [sweep["id"] for sweep in found] == [second.id]


def test_a_sweep_is_shown_with_its_trials(service: Any, run: Any) -> None:
    """Whole points and values, however narrow the pipe."""
    sweep = service.running()
    service.trial(sweep, 0, value=0.5)
    service.trial(sweep, 1)
    _, out, _ = run("show", sweep.id)
    assert "1 completed, 1 running of 4" in out
    assert f"0.5 by {sweep.id}-0000: learning_rate=0.001" in out
    assert f"{sweep.id}-0001" in out
    shown = json.loads(run("show", sweep.id, "--json")[1])
    assert (shown["id"], len(shown["trials"]), shown["counts"]) == (sweep.id, 2, {"completed": 1, "running": 1})


def test_a_sweep_is_stopped(service: Any, run: Any) -> None:
    """One line says its state; a sweep that has ended is a clear line and a failure."""
    sweep = service.running()
    assert run("stop", sweep.id) == (0, f"{sweep.id} is stopping\n", "")
    service.store.move_sweep(sweep.id, SweepState.STOPPED, at=service.clock.now())
    assert run("stop", sweep.id) == (1, "", f"sweepserve: sweep {sweep.id} is stopped and cannot be stopped\n")


def test_a_log_is_printed_as_it_is(service: Any, run: Any) -> None:
    """Brackets in it are no markup."""
    sweep = service.running()
    service.launcher.set_job(sweep.id, 1, Job(state="running"), logs="[bold] epoch 1\n")
    assert run("logs", sweep.id) == (0, "[bold] epoch 1\n", "")
    assert json.loads(run("logs", sweep.id, "--json")[1]) == {"log": "[bold] epoch 1\n"}


def test_families_and_datasets_are_listed(run: Any) -> None:
    """By name, with a line about each."""
    assert "narrow_resnet" in [line.split()[0] for line in run("families")[1].splitlines()]
    assert "digits" in [dataset["name"] for dataset in json.loads(run("datasets", "--json")[1])]


def test_a_model_is_asked_about_image_files(service: Any, run: Any, tmp_path: Path) -> None:
    """A line an image; a file that is not there or no image is named."""
    version = service.model()
    path = tmp_path / "cat.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((16, 16), np.uint8))[1].tobytes())
    status, out, _ = run("predict", "digits", str(path), str(path))
    assert (status, out.count(str(path))) == (0, 2)
    assert f"digits version 1, trial {version.trial_id}" in out
    assert len(json.loads(run("predict", "digits", str(path), "--json")[1])["predictions"]) == 1
    assert run("predict", "digits", "no.png") == (1, "", "sweepserve: no.png: No such file or directory\n")
    path.write_text("no image")
    status, _, err = run("predict", "digits", str(path))
    assert (status, "images[0] (cat.png) cannot be read" in err) == (1, True)
    assert "there is no model named 'nobody' yet" in run("predict", "nobody", str(path))[2]


def test_an_evolution_is_printed_step_by_step(service: Any, run: Any, tmp_path: Path) -> None:
    """A line a step, without the masks, which the JSON has; a model without steps is told apart."""
    service.model("tracer", save=save_random_segmenter)
    service.model("digits")
    path = tmp_path / "cat.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((16, 16), np.uint8))[1].tobytes())
    status, out, _ = run("predict", "tracer", str(path), "--evolution", "--steps", "4")
    assert (status, out.count(str(path)), "counts" in out) == (0, 4, False)
    assert out.splitlines()[0].split() == ["image", "step", "covers", "share"]
    asked = run("predict", "tracer", str(path), "--evolution", "--json")[1]
    assert len(json.loads(asked)["predictions"][0]["evolution"]) == 3
    assert run("predict", "tracer", str(path))[1].splitlines()[0].split() == ["image", "covers", "share"]
    assert "need a recurrent model" in run("predict", "digits", str(path), "--evolution")[2]


@pytest.mark.parametrize("command", ["show", "watch", "leaderboard", "stop", "logs"])
def test_an_unknown_id_is_one_clear_line(run: Any, command: str) -> None:
    """The line names it."""
    status, out, err = run(command, "nonesuch")
    assert (status, out) == (1, "")
    assert err == "sweepserve: there is no sweep 'nonesuch'\n"


def test_an_address_that_does_not_answer_is_one_clear_line(run: Any) -> None:
    """The line says what to do."""
    status, _, err = run("list", "--url", "http://127.0.0.1:9")
    assert status == 1
    assert err.startswith("sweepserve: http://127.0.0.1:9 does not answer")
    assert err.endswith("start it with `sweepserve up`, or say where it is with --url\n")


def test_a_setting_that_is_none_is_one_clear_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable of the environment is named."""
    monkeypatch.setenv("SWEEPSERVE_POTR", "1")
    status, _, err = run("list")
    assert (status, err.startswith("sweepserve: SWEEPSERVE_POTR is not a setting")) == (1, True)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            Unavailable("port 8000 of 127.0.0.1: address already in use"),
            "port 8000 of 127.0.0.1: address already in use",
        ),
        (ValueError("SWEEPSERVE_SERVING: need a JSON object"), "SWEEPSERVE_SERVING: need a JSON object"),
        (PermissionError(13, "Permission denied", "/srv"), "[Errno 13] Permission denied: '/srv'"),
    ],
)
def test_an_api_that_cannot_start_says_why_in_a_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A taken port, a setting that is none, a home of somebody else's."""

    def serve(settings: Settings) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "service.api.server", SimpleNamespace(serve=serve))  # it imports torch
    with pytest.raises(SystemExit) as ended:
        main(["api"])
    assert (ended.value.code, capsys.readouterr().err) == (1, f"sweepserve: {line}\n")


def test_a_question_leaves_the_answer_alone(service: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether to delete is asked on stderr; stdout has what was asked for, or nothing."""
    sweep = service.running()
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    asked = f"Delete digits {sweep.id} with all that it found? [y/N]:"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\ny\n"))
    status, out, err = run("delete", sweep.id, "--json")
    assert (status, out.strip()) == (1, "")
    assert err.startswith(asked)
    status, out, err = run("delete", sweep.id, "--json")
    assert (status, json.loads(out)["state"], err.strip()) == (0, "deleting", asked)


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """As in `sweepserve list | head`: nothing is complained of."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "SWEEPSERVE_HOME": str(tmp_path), "PYTHONUNBUFFERED": ""}  # as a user's is
    command = [sys.executable, "-m", "service", "data", "list"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"train.learning_rate": 0.00123456, "model.channels": [8, 16]}, "learning_rate=0.001235 channels=8-16"),
        ({"train.size": 1, "data.size": 2}, "train.size=1 data.size=2"),
        ({"model.residual": True}, "residual=True"),
    ],
)
def test_points_are_short_and_never_ambiguous(values: dict[str, Any], shown: str) -> None:
    """The group of a name is left out where no other parameter has the same name."""
    assert text.point(values) == shown


def test_asking_commands_import_nothing_heavy() -> None:
    """They start in a blink because of it; benchmarks/embedded_stack.py has the time."""
    code = f"""
import sys
from service.cli.commands import main
try:
    main(["list", "--url", "http://127.0.0.1:9"])
except SystemExit:
    print(sorted({HEAVY} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
