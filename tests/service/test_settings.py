"""Settings come from the environment and go to other processes through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import Settings


def test_the_environment_gives_settings_and_takes_them() -> None:
    """Settings written to an environment are read back equal, whatever else it holds."""
    settings = Settings(home=Path("/srv/sweeps"), database="postgresql://db/sweeps", port=8100, max_images=7)
    assert Settings.from_environment({**settings.to_environment(), "PATH": "/bin"}) == settings


def test_an_empty_variable_leaves_the_default() -> None:
    """Compose files set variables to nothing; that must not make the working directory the home."""
    assert Settings.from_environment({"SWEEPSERVE_HOME": "", "SWEEPSERVE_PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("SWEEPSERVE_PORTT", "1", "SWEEPSERVE_PORTT is not a setting"),
        ("SWEEPSERVE_PORT", "many", "SWEEPSERVE_PORT needs a whole number, got 'many'"),
        ("SWEEPSERVE_PORT", "²", "SWEEPSERVE_PORT needs a whole number"),
        ("SWEEPSERVE_MLFLOW_PORT", "70000", "SWEEPSERVE_MLFLOW_PORT needs a port from 1 to 65535, got 70000"),
    ],
)
def test_an_illegal_variable_is_named_with_its_rule(name: str, text: str, rule: str) -> None:
    """A misspelt or illegal setting never passes silently."""
    with pytest.raises(ValueError, match=rule):
        Settings.from_environment({name: text})


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8000"), ("::1", "http://[::1]:8000"), ("lab.example", "http://lab.example:8000")],
)
def test_clients_on_this_machine_reach_the_api_wherever_it_listens(host: str, url: str) -> None:
    """The address to connect to is never "every interface", and an IPv6 address is bracketed."""
    assert Settings(host=host).api_url == url


def test_a_home_below_the_users_own_is_made_absolute() -> None:
    """Other processes have other working directories."""
    assert Settings.from_environment({"SWEEPSERVE_HOME": "~/sweeps"}).home == Path.home() / "sweeps"
    assert Settings.from_environment({"SWEEPSERVE_HOME": "here"}).home == Path.cwd() / "here"


def test_a_foreign_clusters_token_has_its_own_file() -> None:
    """The embedded head's token is under home; that of a cluster of one's own is where the user says."""
    assert Settings(home=Path("/h")).ray_token_path == Path("/h/ray/token")
    assert Settings(ray_token_file="/run/secrets/ray").ray_token_path == Path("/run/secrets/ray")
