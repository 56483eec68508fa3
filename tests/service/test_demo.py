"""`sweepserve demo`, as `make demo` runs it."""

import re

import pytest

pytestmark = pytest.mark.slow


def test_the_demo_leads_from_nothing_to_predictions(runner) -> None:
    """Without a terminal it shows everything in lines, ends its stack and exits 0."""
    demo = runner.command("demo")
    output, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, output
    right = re.search(r"^(\d+) of 100 are right", output, re.MULTILINE)
    assert right is not None
    assert int(right[1]) >= 90
    assert f"{runner.url}/docs" in output
    assert re.search(rf"{runner.mlflow_url}/#/experiments/\d+/runs/", output)
    assert runner.left() == []
