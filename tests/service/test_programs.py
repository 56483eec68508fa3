"""How the programs of the embedded stack are prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.programs import Program, past_proxies, ports, programs
from service.settings import Settings


def _mlflow(home: Path) -> Program:
    return next(program for program in programs(Settings(home=home, ray_url="http://127.0.0.1:1")) if program.served)


@pytest.mark.parametrize("served", [False, True])
def test_only_a_database_that_never_served_is_made_anew(tmp_path: Path, served: bool) -> None:
    """MLflow cannot finish half-made tables, so they go; what has served is never touched."""
    mark = _mlflow(tmp_path).served
    assert mark is not None
    database = tmp_path / "mlflow" / "mlflow.db"
    database.write_text("half-made tables")
    if served:
        mark.touch()
    _mlflow(tmp_path)
    assert database.exists() is served


def test_replicas_on_the_embedded_head_have_a_port_of_their_own(tmp_path: Path) -> None:
    """A stack looks first whether it is free; on a cluster of one's own it is not the stack's business."""
    replicas = '{"url": "http://127.0.0.1:8101"}'
    embedded = Settings(home=tmp_path, replicas=replicas)
    assert ("127.0.0.1", 8101, "the url in SWEEPSERVE_REPLICAS") in ports(embedded)
    assert 8101 not in [port for _, port, _ in ports(Settings(home=tmp_path, replicas=replicas, ray_url="http://h:1"))]
    assert 8001 not in [port for _, port, _ in ports(Settings(home=tmp_path))]
    with pytest.raises(ValueError, match="SWEEPSERVE_REPLICAS: max: need at least min, 3, got 1"):
        ports(Settings(home=tmp_path, replicas='{"min": 3}'))


@pytest.mark.parametrize(
    ("environment", "exceptions"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "lab"}, "lab,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "lab", "no_proxy": "home"}, "home,127.0.0.1,localhost,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_programs_find_each_other_past_a_proxy(environment: dict[str, str], exceptions: str) -> None:
    """Loopback joins what the user's environment says, under both names of the variable."""
    assert past_proxies(environment) == {"no_proxy": exceptions, "NO_PROXY": exceptions}
