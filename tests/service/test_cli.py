"""The `sweepserve` command against a real server, as a user runs it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from rich.console import Console

from service.cli import text
from service.cli.watching import follow
from service.domain import Exploit, Job, Measurement, SweepState, TrialState
from service.settings import Settings
from tests.service.conftest import save_random_segmenter

SPEC = "name: digits\nfamily: narrow_resnet\ndata: {name: digits}\nsearch: {trials: 3}\n"
HEAVY = {"torch", "ray", "mlflow", "optuna", "fastapi", "sqlalchemy", "cv2", "numpy", "uvicorn"}


def test_a_spec_is_submitted_from_a_file(service: Any, run: Any, tmp_path: Path) -> None:
    """One line says its id and how to go on."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC)
    status, out, err = run("submit", str(path))
    (sweep,) = service.store.sweeps()
    assert (status, err) == (0, "")
    assert out == f"submitted digits as {sweep.id}; follow it with: sweepserve watch {sweep.id}\n"
    assert sweep.spec["search"]["trials"] == 3


def test_a_packaged_study_is_submitted_by_its_name(service: Any, run: Any) -> None:
    """No file of that name is needed."""
    status, out, _ = run("submit", "quickstart", "--json")
    assert (status, json.loads(out)["name"]) == (0, "quickstart")
    assert [sweep.name for sweep in service.store.sweeps()] == ["quickstart"]


def test_every_fault_of_a_spec_is_printed_with_its_pointer(service: Any, run: Any, tmp_path: Path) -> None:
    """One line a fault on stderr; nothing is submitted."""
    path = tmp_path / "sweep.yaml"
    path.write_text("name: digits\nfamily: none\ndata: {name: digits}\nsearch: {trials: 0}\n")
    status, out, err = run("submit", str(path))
    assert (status, out) == (1, "")
    first, *faults = err.splitlines()
    assert first == "sweepserve: the spec has 2 faults"
    assert sorted(fault.split(":")[0] for fault in faults) == ["  /family", "  /search/trials"]
    assert service.store.sweeps() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is neither a file nor a packaged study; the studies are: "),
        (b"a: [1\n", "sweep.yaml: line 2: "),
        (b"a: 1\na: 2\n", "sweep.yaml: line 2: the key 'a' is there twice"),
        (b"- 1\n", "sweep.yaml: need a mapping of settings (name, family, data, ...), got list"),
        (b"", "sweep.yaml: need a mapping of settings (name, family, data, ...), got NoneType"),
        (b"\xff\xfe\x00", "sweep.yaml: "),
        (b"name: .nan\n", "the spec cannot be sent as JSON"),
    ],
)
def test_a_file_that_is_no_spec_is_one_clear_line(
    run: Any, tmp_path: Path, content: bytes | None, message: str
) -> None:
    """Missing, broken, or something else altogether."""
    path = tmp_path / "sweep.yaml"
    if content is not None:
        path.write_bytes(content)
    status, out, err = run("submit", str(path))
    assert (status, out) == (1, "")
    assert err.startswith("sweepserve: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_is_no_spec(run: Any, tmp_path: Path) -> None:
    """The system's own reason is given."""
    assert run("submit", str(tmp_path)) == (1, "", f"sweepserve: {tmp_path}: Is a directory\n")


def test_sweeps_are_listed(service: Any, run: Any) -> None:
    """As a table, or as the API's JSON; filtered by state."""
    queued, running = service.sweep("first"), service.running("second")
    status, out, _ = run("list")
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()[2:4]] == [
        [running.id, "second", "running"],
        [queued.id, "first", "queued"],
    ]
    found = json.loads(run("list", "--json", "--state", "running")[1])
    assert [sweep["id"] for sweep in found] == [running.id]


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
    assert header.split()[:5] == ["front", "trial", "epochs", "validation/accuracy", "model/parameters"]
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


def test_without_a_terminal_a_sweep_is_watched_in_lines(service: Any, run: Any) -> None:
    """What happens, a line each, and the best at the end."""
    sweep = service.running()
    service.store.add_progress(sweep.id, what="making digits", done=10, total=10, at=service.clock.now())
    service.trial(sweep, 0, value=0.5)
    for reason in ("no room", ""):
        service.store.add_wait(sweep.id, reason=reason, at=service.clock.now())
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    status, out, _ = run("watch", sweep.id)
    assert status == 0
    assert out.splitlines() == [
        f"sweep {sweep.id} is queued",
        f"sweep {sweep.id} is running",
        "making digits: 10 of 10",
        "trial 0 starts: learning_rate=0.001",
        "trial 0 epoch 1: validation/accuracy 0.5",
        "trial 0 completed (1 of 4), validation/accuracy 0.5",
        f"sweep {sweep.id} waits: no room",
        f"sweep {sweep.id} goes on",
        f"sweep {sweep.id} is completed",
        "best: trial 0 with validation/accuracy 0.5",
    ]


def test_who_copied_whom_is_told(service: Any, run: Any) -> None:
    """As it happens, and in the list of trials, whose points are those of now."""
    sweep = service.running()
    one, two = service.trial(sweep, 0), service.trial(sweep, 1)
    exploit = Exploit(
        trial_id=one.id,
        step=4,
        source=two.id,
        before=dict(one.point),
        point={"train.learning_rate": 0.0042},
        checkpoint="/c",
    )
    service.store.add_exploits(sweep.id, [exploit], at=service.clock.now())
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    _, out, _ = run("watch", sweep.id)
    assert "trial 0 epoch 4: goes on from trial 1 with learning_rate=0.0042" in out.splitlines()
    _, out, _ = run("show", sweep.id)
    (row,) = [line for line in out.splitlines() if line.startswith(one.id)]
    assert "learning_rate=0.0042" in row
    assert f"{two.id} at 4" in row
    _, out, _ = run("show", sweep.id, "--json")
    shown = json.loads(out)["trials"][0]["exploits"]
    assert [(made["step"], made["source"], made["before"]) for made in shown] == [(4, two.id, dict(one.point))]


def test_a_watched_sweep_that_fails_is_a_failure(service: Any, run: Any) -> None:
    """The exit status tells scripts; with --json the events come one a line."""
    sweep = service.running()
    service.store.move_sweep(sweep.id, SweepState.FAILED, at=service.clock.now(), reason="its driver died")
    status, out, _ = run("watch", sweep.id)
    assert (status, out.splitlines()[-1]) == (1, f"sweep {sweep.id} is failed: its driver died")
    status, out, _ = run("watch", sweep.id, "--json")
    assert (status, [json.loads(line)["number"] for line in out.splitlines()]) == (1, [1, 2, 3])


def test_a_submitted_sweep_can_be_followed_at_once(service: Any, run: Any, tmp_path: Path) -> None:
    """`submit --watch` returns when the sweep has ended."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC)

    def drive() -> None:
        while not service.store.sweeps():
            time.sleep(0.01)  # the other side is a real server
        sweep = service.store.sweeps()[0]
        service.store.move_sweep(sweep.id, SweepState.RUNNING, at=service.clock.now())
        service.trial(sweep, 0, value=0.5)
        service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())

    driver = threading.Thread(target=drive)
    driver.start()
    status, out, _ = run("submit", str(path), "--watch")
    driver.join()
    assert (status, out.splitlines()[-1]) == (0, "best: trial 0 with validation/accuracy 0.5")


def test_on_a_terminal_a_sweep_is_watched_live(service: Any) -> None:
    """Bars for the trials and the data, the best so far, and the newest trials; NaN is shown as it is."""
    sweep = service.running()
    service.store.add_progress(sweep.id, what="making digits", done=3, total=10, at=service.clock.now())
    preparing = _live(service, sweep)
    assert "making digits" in preparing
    assert "3/10" in preparing
    for number, value in enumerate([0.5, 0.75, None]):
        service.trial(sweep, number, value=value)
    running = _live(service, sweep)
    assert "making digits" not in running
    assert "running, best 0.75 by trial 1" in running
    assert "2/4" in running
    assert [line.split()[:4] for line in running.splitlines()[-3:]] == [
        ["2", "running", "1", "NaN"],
        ["1", "completed", "1", "0.75"],
        ["0", "completed", "1", "0.5"],
    ]


def _live(service: Any, sweep: Any) -> str:
    """The last picture of the live display."""
    shown = service.http.get(f"/v1/sweeps/{sweep.id}").json()
    events = service.http.get(f"/v1/sweeps/{sweep.id}/events").json()["events"]
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40, color_system=None, record=True)
    follow(shown, events, console)
    picture = console.export_text()
    return "\n".join(
        line.rstrip()
        for line in picture[picture.rindex(f"{shown['name']} {shown['id']}") :].splitlines()
        if line.strip()
    )


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


@pytest.mark.slow
def test_the_api_runs_alone_and_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    """`sweepserve api` on an empty home: it serves, says that there is no Ray, and ends within seconds of SIGTERM."""
    port = _free_port()
    settings = Settings(
        home=tmp_path / "home", port=port, ray_url="http://127.0.0.1:9", mlflow_url="http://127.0.0.1:9"
    )
    environment = {**os.environ, **settings.to_environment()}
    command = [sys.executable, "-m", "service", "api"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        _wait_until_it_serves(f"{settings.api_url}/healthz", process)
        parts = httpx.get(f"{settings.api_url}/readyz").json()["parts"]
        assert parts["store"] == "ok"
        assert parts["cluster"].startswith("Ray at http://127.0.0.1:9 does not answer")
        assert _fastest(f"{settings.api_url}/healthz") < 0.035  # 40 ms would be Nagle's algorithm
        second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        taken = f"port {port} of 127.0.0.1: address already in use; set SWEEPSERVE_PORT to a free one"
        assert (second.returncode, second.stderr.splitlines()[-1]) == (1, f"sweepserve: {taken}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(8) in (0, -signal.SIGTERM)
        assert "Traceback" not in (process.stdout.read() if process.stdout else "")
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _fastest(url: str) -> float:
    """Seconds of the fastest of ten requests on one connection."""
    spent = []
    with httpx.Client() as client:
        for _ in range(10):
            began = time.perf_counter()
            client.get(url)
            spent.append(time.perf_counter() - began)
    return min(spent)


def _wait_until_it_serves(url: str, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.1)  # a real process
    pytest.fail(f"{url} did not answer within a minute")


def test_a_spec_is_previewed(service: Any, run: Any, tmp_path: Path) -> None:
    """How many trials, where, and the first points; nothing is submitted."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC + "space: {train.learning_rate: {kind: float, low: 1e-4, high: 1e-2}}\n")
    status, out, _ = run("validate", str(path))
    assert status == 0
    assert "at once     2" in out
    assert out.count("learning_rate=") == 3
    assert json.loads(run("validate", str(path), "--json")[1])["trials"] == 3
    assert service.store.sweeps() == []


def test_a_sweep_is_cloned_with_changes(service: Any, run: Any) -> None:
    """Each `--set` changes a part of the spec, in YAML; a key makes it once."""
    sweep = service.sweep()
    for _ in range(2):
        arguments = ("clone", sweep.id, "--set", "search={trials: 9}", "--set", "name=other", "--key", "k")
        status, out, _ = run(*arguments)
        assert (status, out.split()[:2]) == (0, ["submitted", "other"])
    (cloned,) = service.store.sweeps(name="other")
    assert cloned.spec["search"]["trials"] == 9
    assert run("clone", sweep.id, "--set", "search")[2] == "sweepserve: need --set PART=VALUE, got 'search'\n"


def test_a_spec_is_submitted_whole_or_scaled(service: Any, run: Any, tmp_path: Path) -> None:
    """`--scaled` applies its own `scale`, which is otherwise left out."""
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC + "scale: {search: {trials: 2}}\n")
    for options, trials in [((), 3), (("--scaled",), 2)]:
        status, out, _ = run("submit", str(path), "--json", *options)
        assert (status, json.loads(out)["spec"]["search"]["trials"]) == (0, trials)
