"""docker-compose.yml and the Dockerfile, where there is no engine to run them: their shape, and every command line."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "sweepserve"}
TEXT = (ROOT / "docker-compose.yml").read_text()


def test_the_cluster_is_complete() -> None:
    """Database, MLflow, Ray head and worker, API; each restarts, and each says whether it is well."""
    assert set(SERVICES) == {"postgres", "mlflow", "ray-head", "ray-worker", "api"}
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name


def test_only_the_api_and_mlflow_are_published() -> None:
    """Every other port stays within the network, or on loopback."""
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert name in ("api", "mlflow") or port.startswith("127.0.0.1:"), (name, port)


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    """Compose refuses to start without them."""
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET", variable) and not value.startswith("/run/secrets/"):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), (name, variable)
    assert all(set(secret) == {"environment"} for secret in COMPOSE["secrets"].values())
    assert "://sweepserve:" not in TEXT  # no password in a URL


def test_what_is_named_is_declared() -> None:
    """Volumes, secrets, configs and the services that others wait for; and those have a health check to wait for."""
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        for secret in service.get("secrets", ()):
            assert secret in COMPOSE["secrets"]
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"]
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other]


def test_settings_are_known_and_agree() -> None:
    """Every SWEEPSERVE_ variable is a setting, and the API and the drivers have the same home and database."""
    from service.settings import Settings

    for service in OURS.values():
        Settings.from_environment(service["environment"])
    for variable in ("SWEEPSERVE_HOME", "SWEEPSERVE_DATABASE"):
        assert len({SERVICES[name]["environment"][variable] for name in ("api", "ray-head", "ray-worker")}) == 1
    for name in ("api", "ray-head", "ray-worker"):
        assert "data:/data" in SERVICES[name]["volumes"]


def test_addresses_within_the_network_name_services() -> None:
    """`http://mlflow:5000` and its like lead to a service of that name, at a port that it listens on."""
    for host, port in re.findall(r"(?:http://|@|=)([a-z][a-z-]+):(\d{4})\b", TEXT):
        if host != "localhost":
            assert f"={port}" in " ".join(SERVICES[host]["command"]) or port == "8000", (host, port)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OURS))
def test_a_services_command_knows_its_options(name: str) -> None:
    """The same command line with --help added is understood; an option of another version would not be."""
    program, *arguments = OURS[name]["command"]
    result = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


def test_the_image_holds_what_its_installation_reads() -> None:
    """Every file that the Dockerfile copies is there and let through by .dockerignore."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        shlex.split(line)[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")
    ]
    for source in (one for line in copied for one in line):
        assert source in let_through
        assert (ROOT / source).exists(), source
