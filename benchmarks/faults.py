"""Does a sweep survive every fault, every time?

    python benchmarks/faults.py --rounds 20

Each round runs all of tests/faults, the long cases too, against stacks of its own: SIGKILL to the API, the driver, a
trial's worker, MLflow, Ray and everything at once; MLflow absent and silent; the database restarted. Each test checks
that its fault happened and that nothing was lost. A round takes a few minutes; the kills come at random moments, others
in each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks.recorded import ROOT, record


def run_round(seed: int) -> dict[str, tuple[str, float]]:
    """What became of each test, `passed`, `failed` or `skipped`, and its seconds."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/faults", f"--junit-xml={report}"]
        environment = {**os.environ, "SWEEPSERVE_LONG_TESTS": "1", "SWEEPSERVE_FAULT_SEED": str(seed)}
        subprocess.run(command, cwd=ROOT, env=environment, check=False)
        outcomes = {}
        for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - pytest wrote it just now
            kinds = {child.tag for child in case}
            outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            outcomes[str(case.get("name"))] = outcome, float(case.get("time", 0))
        return outcomes


def main() -> None:
    """Runs the rounds and writes the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"passed": 0, "failed": 0, "skipped": 0})
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for name, (outcome, took) in run_round(number).items():
            found[name][outcome] += 1
            seconds[name].append(took)
        content = {
            "question": "how often does a sweep survive each fault",
            "rounds": number + 1,
            "tests": {
                name: {**counts, "seconds_median": statistics.median(seconds[name])} for name, counts in found.items()
            },
        }
        record("faults", content, packages=("ray", "mlflow", "optuna", "torch", "sqlalchemy"))
        print(f"round {number + 1} of {rounds} is over", flush=True)


if __name__ == "__main__":
    main()
