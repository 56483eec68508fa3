"""`sweepserve up`, started as a user starts it: what it says, and that nothing of it stays whatever ends it."""

import signal
import socket
import time

import httpx
import psutil
import pytest

pytestmark = pytest.mark.slow

# A cluster and an MLflow server that are somebody else's, so that only the API is ours: it starts in a few seconds.
ELSEWHERE = {"SWEEPSERVE_RAY_URL": "http://127.0.0.1:9", "SWEEPSERVE_MLFLOW_URL": "http://127.0.0.1:9"}


@pytest.mark.parametrize("variable", ["SWEEPSERVE_PORT", "SWEEPSERVE_MLFLOW_PORT", "SWEEPSERVE_DASHBOARD_PORT"])
def test_a_taken_port_is_one_line_with_the_port_and_the_setting(runner, variable: str) -> None:
    """It says so before it starts anything."""
    port = int(runner.environment[variable])
    with socket.create_server(("127.0.0.1", port)):
        up = runner.command("up")
        output, _ = up.communicate(timeout=60)
    assert up.returncode == 1
    assert output.count("\n") == 1
    assert f"port {port} " in output
    assert variable in output
    assert runner.left() == []


def test_a_home_that_cannot_be_is_one_line(runner) -> None:
    """With the system's reason and the setting."""
    runner.home.write_text("a file")
    up = runner.command("up")
    output, _ = up.communicate(timeout=60)
    assert up.returncode == 1
    assert output.count("\n") == 1
    assert f"Not a directory: '{runner.home / 'logs'}'; everything is kept in {runner.home} (SWEEPSERVE_HOME)" in output
    assert runner.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_serving_stack(runner, number: int) -> None:
    """Ctrl-C, or a terminal that closes."""
    up = runner.command("up", **ELSEWHERE)
    printed = runner.read_until(up, "Ctrl-C ends it")
    assert f"{runner.url}/docs" in printed
    assert httpx.get(f"{runner.url}/healthz").is_success
    assert runner.left()
    up.send_signal(number)
    up.communicate(timeout=10)
    assert up.returncode == 0
    assert runner.left() == []


def test_a_home_has_one_stack_and_a_start_can_be_interrupted(runner) -> None:
    """A second `up` names the first one's address; SIGTERM in the middle of a start leaves nothing."""
    first = runner.command("up")
    runner.read_until(first, "starting")
    second = runner.command("up")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 1
    assert output.count("\n") == 1
    assert f"{runner.home} is in use by {runner.url} (process {first.pid})" in output
    assert len(runner.left()) >= 3
    first.terminate()
    first.communicate(timeout=10)
    assert first.returncode == 0
    assert runner.left() == []


def test_a_start_that_fails_says_why_and_leaves_nothing(runner) -> None:
    """MLflow cannot read its database: one clear line, then the end of its log."""
    database = runner.home / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    database.write_text("this is no database. " * 100)
    (database.parent / "served").touch()  # it is not of a first start, and so is left alone
    up = runner.command("up")
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 1
    assert "sweepserve: MLflow ended at its start" in output
    assert str(runner.home / "logs" / "mlflow.log") in output
    assert "file is not a database" in output
    assert runner.left() == []


def test_what_a_killed_stack_left_is_ended_by_the_next(runner) -> None:
    """SIGKILL in the middle of a start; the next `up` on that home clears up before all else, even if it then fails.

    Most of what is left ends by itself within seconds, since the kernel asks it to. Not what hangs.
    """
    killed = runner.command("up")
    runner.read_until(killed, "starting")
    _await(lambda: any("gcs_server" in line for line in runner.left()))
    hanging = next(process for process, line in runner.processes().items() if "gcs_server" in line)
    hanging.suspend()
    killed.kill()
    killed.communicate(timeout=10)
    assert hanging.is_running()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        output, _ = runner.command("up", SWEEPSERVE_PORT=str(taken.getsockname()[1])).communicate(timeout=60)
    assert "address already in use" in output
    assert "of a stack that was killed" in output
    assert runner.left() == []


def test_a_program_that_dies_is_started_again(runner) -> None:
    """The API is killed, and serves again a little later."""
    up = runner.command("up", **ELSEWHERE)
    runner.read_until(up, "Ctrl-C ends it")
    (api,) = psutil.Process(up.pid).children()
    api.kill()
    runner.read_until(up, "API ended .* starts again")
    _await(lambda: _answers(f"{runner.url}/healthz"))


IMPATIENT = "from service import programs, __main__; programs._RAY_PATIENCE = 5.0; __main__.main()"


def test_a_ray_head_that_can_start_no_job_is_started_again(runner) -> None:
    """The agent that would start it hangs; head, dashboard and raylet do not."""
    up = runner.command("up", program=("-c", IMPATIENT), SWEEPSERVE_MLFLOW_URL=ELSEWHERE["SWEEPSERVE_MLFLOW_URL"])
    runner.read_until(up, "Ctrl-C ends it")
    (agent,) = _agents(runner)
    agent.suspend()
    said = runner.read_until(up, "Ray ended .* starts again")
    assert "Ray lives, but does not answer any more; ending it" in said
    _await(lambda: bool(_agents(runner)))
    assert agent not in _agents(runner)


def _agents(runner) -> list[psutil.Process]:
    return [process for process, line in runner.processes().items() if line.startswith("ray::DashboardAgent")]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def _await(condition, *, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
