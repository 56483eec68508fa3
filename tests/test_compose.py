"""docker-compose.yml and the Dockerfile, where there is no engine to run them: their shape, and every command line."""

import re
import shlex
import subprocess
import sys
import tomllib
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
    """Database, object store, MLflow, Ray head and workers, API; each restarts, and each says whether it is well.

    The bucket's maker ends once it has made it.
    """
    lasting = {name: service for name, service in SERVICES.items() if name != "bucket"}
    assert set(lasting) == {"postgres", "objects", "mlflow", "ray-head", "ray-worker", "ray-worker-gpu", "api"}
    for name, service in lasting.items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] == "CMD", name
    assert SERVICES["bucket"]["restart"] == "no"


def test_only_the_api_is_published_and_it_asks_for_keys() -> None:
    """Every other port stays within the network, or on loopback."""
    from service.settings import Settings

    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert name == "api" or port.startswith("127.0.0.1:"), (name, port)
    assert Settings.from_environment(SERVICES["api"]["environment"]).keys_required


def test_gpus_are_asked_for_by_a_profile() -> None:
    """A machine without any starts everything else."""
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["ray-worker-gpu"]
    gpu = SERVICES["ray-worker-gpu"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert (gpu["command"], gpu["environment"]) == (
        SERVICES["ray-worker"]["command"],
        SERVICES["ray-worker"]["environment"],
    )


def test_another_worker_may_have_the_machine() -> None:
    """Each announces all of its processors, so the one with the GPUs takes the place of the one without."""
    assert [(name, one["scale"]) for name, one in SERVICES.items() if "scale" in one] == [
        ("ray-worker", "${CPU_WORKERS:-1}")
    ]
    assert not any("ray-worker" in one.get("depends_on", {}) for one in SERVICES.values())
    assert "`CPU_WORKERS=0`" in (ROOT / "docs" / "operations.md").read_text()


def test_artifacts_go_through_mlflow() -> None:
    """It alone has the object store's keys; nobody else needs them, nor the store's address."""
    assert "--artifacts-destination=s3://mlflow" in SERVICES["mlflow"]["command"]
    assert "--no-serve-artifacts" not in SERVICES["mlflow"]["command"]
    holders = {name for name, service in SERVICES.items() if "AWS_SECRET_ACCESS_KEY" in service.get("environment", {})}
    assert holders == {"mlflow", "bucket"}


def test_mlflow_may_go_by_another_name_too() -> None:
    """It joins those by which the API and people on this machine ask; its page's origin is let through beside it."""
    options = dict(one.split("=", 1) for one in SERVICES["mlflow"]["command"] if "=" in one)
    assert options["--allowed-hosts"] == "mlflow:5000,localhost:*,127.0.0.1:*,${MLFLOW_ALLOWED_HOSTS:-}"
    assert options["--cors-allowed-origins"] == "${MLFLOW_ALLOWED_ORIGINS:-}"


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    """Compose refuses to start without them."""
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|SECRET", variable) and not value.startswith("/run/secrets/"):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), (name, variable)
    assert all(set(secret) == {"environment"} for secret in COMPOSE["secrets"].values())
    assert "://sweepserve:" not in TEXT  # no password in a URL


def test_secrets_may_lie_beside_the_file() -> None:
    """Every command reads them from `.env`, which is neither committed nor part of the image."""
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    taken = (ROOT / ".dockerignore").read_text().splitlines()
    assert taken[0] == "*"  # nothing but what is named after it
    assert "!.env" not in taken


def test_the_image_is_built_once_and_never_pulled() -> None:
    """Compose builds what services ask for side by side, and the second build of a tag fails."""
    assert [name for name, service in OURS.items() if "build" in service] == ["api"]
    assert {service["pull_policy"] for service in OURS.values()} == {"never"}


def test_builds_may_ask_for_another_torch() -> None:
    """Its version and the index that has it reach pip; what is left out is empty, which pip takes for not given."""
    accepted = re.findall(r"^ARG (\w+)=$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert accepted == ["TORCH", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"]
    assert SERVICES["api"]["build"]["args"] == {name: f"${{{name}:-}}" for name in accepted}


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
            ended = SERVICES[other]["restart"] == "no"
            assert wanted == {"condition": "service_completed_successfully" if ended else "service_healthy"}
            assert ended or "healthcheck" in SERVICES[other]


def test_settings_are_known_and_agree() -> None:
    """Every SWEEPSERVE_ variable is a setting, and what the API and the drivers both read is the same for them."""
    from service.settings import Settings

    for service in OURS.values():
        Settings.from_environment(service["environment"])
    for variable in ("SWEEPSERVE_HOME", "SWEEPSERVE_DATABASE", "SWEEPSERVE_JSON_LOGS"):
        assert (
            len(
                {
                    SERVICES[name]["environment"][variable]
                    for name in ("api", "ray-head", "ray-worker", "ray-worker-gpu")
                }
            )
            == 1
        )
    for name in ("api", "ray-head", "ray-worker", "ray-worker-gpu"):
        assert "data:/data" in SERVICES[name]["volumes"]


def test_addresses_within_the_network_name_services() -> None:
    """`http://mlflow:5000` and its like lead to a service of that name, at a port that it listens on."""
    for host, port in re.findall(r"(?:http://|@|=)([a-z][a-z-]+):(\d{4})\b", TEXT):
        if host != "localhost":
            own = {"api": "8000", "objects": "9000"}.get(host)  # these listen there unless told otherwise
            assert f"={port}" in " ".join(SERVICES[host]["command"]) or port == own, (host, port)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(OURS) - {"bucket"}))
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


def test_the_image_has_what_its_commands_import() -> None:
    """The drivers of PostgreSQL and of S3, and Ray Serve, are extras of the package."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert '".[postgres,s3,serve]"' in (ROOT / "Dockerfile").read_text()
    assert extras["s3"][0].startswith("boto3")
    assert extras["serve"][0].startswith("ray[serve]")


def test_the_image_has_a_compiler() -> None:
    """Trials with `train.compile` compile what PyTorch writes; without one each of them would fail."""
    assert re.search(r"apt-get install .*\bg\+\+", (ROOT / "Dockerfile").read_text())


def test_the_image_holds_what_its_installation_reads() -> None:
    """Every file that the Dockerfile copies is there and let through by .dockerignore."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        shlex.split(line)[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")
    ]
    for source in (one for line in copied for one in line):
        assert source in let_through
        assert (ROOT / source).exists(), source
