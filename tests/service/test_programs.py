"""How the programs of the embedded stack are prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.programs import Program, programs
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
