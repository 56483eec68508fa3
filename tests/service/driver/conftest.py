"""A running sweep of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.driver.run_harness import Harness


@pytest.fixture(name="harness")
def _harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)
