"""Does a sweep survive every fault, every time?

    python benchmarks/faults.py --rounds 20

Each round runs all of tests/faults, the long cases too, against stacks of its own. Each test checks that its fault
happened and that nothing was lost. The kills come at random moments, others in each round: they follow from the round's
seed. What failed is told with its seed, and the result is written after each round. The code must stay as it is
meanwhile, since every driver that is started imports it anew; a round through which it changed does not count.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from benchmarks.recorded import ROOT, commit, record, spread

FAULTS: Mapping[str, str] = {
    "test_every_program_in_turn": "SIGKILL to API, driver, worker, MLflow and Ray in random order, then to everything",
    "test_one_program_again_and_again[API]": "SIGKILL to the API, three times in a sweep",
    "test_one_program_again_and_again[driver]": "SIGKILL to the sweep's driver, twice in a sweep",
    "test_one_program_again_and_again[worker]": "SIGKILL to the trials' workers, twice in a sweep",
    "test_one_program_again_and_again[MLflow]": "SIGKILL to MLflow, three times in a sweep",
    "test_one_program_again_and_again[Ray]": "SIGKILL to Ray's head, twice in a sweep",
    "test_a_population_survives_its_driver": "SIGKILL to the driver of a population",
    "test_mlflow_is_absent_then_silent_and_has_everything_in_the_end": "MLflow absent, then taking requests in silence",
    "test_the_database_is_restarted": "PostgreSQL stopped at once and restarted, twice in a sweep",
}
"""What is done to a sweep, by test."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fault in one round."""

    state: str
    """`survived`, `failed` or `skipped`."""
    seconds: float
    said: str = ""
    """Why it failed or was skipped."""


def run_round(seed: int) -> dict[str, Outcome]:
    """The outcomes by test. A test that ends is told at once; one that is in no report has failed."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "tests/faults", f"--junit-xml={report}"]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "SWEEPSERVE_LONG_TESTS": "1",
            "SWEEPSERVE_FAULT_SEED": str(seed),
        }
        lines = []
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as pytest:
            assert pytest.stdout is not None
            for line in pytest.stdout:
                lines.append(line.rstrip())
                if told := re.search(r"::(test_\S+) (PASSED|FAILED|ERROR|SKIPPED)", line):
                    print(
                        f"  {time.strftime('%H:%M:%S')} {told[2].lower():8}{FAULTS.get(told[1], told[1])}", flush=True
                    )
        missing = Outcome("failed", 0.0, f"pytest ended with {pytest.returncode}: {' | '.join(lines[-3:])}")
        outcomes = dict.fromkeys(FAULTS, missing)
        if report.exists():
            outcomes |= {str(case.get("name")): _outcome(case) for case in ET.parse(report).iter("testcase")}  # noqa: S314 - pytest wrote it just now
        unknown = outcomes.keys() - FAULTS.keys()
        assert not unknown, f"say in FAULTS what these do: {unknown}"
        return outcomes


def _outcome(case: ET.Element) -> Outcome:
    said = {child.tag: str(child.get("message", "")) for child in case}
    for tag, state in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if tag in said:
            return Outcome(state, float(case.get("time", 0)), said[tag][:500])
    return Outcome("survived", float(case.get("time", 0)))


def summary(rounds: Mapping[int, tuple[dict[str, Outcome], float]], asked: int) -> dict[str, Any]:
    """How often each fault was survived, and every failure with its seed."""
    faults = []
    for test, fault in FAULTS.items():
        outcomes = {seed: outcomes[test] for seed, (outcomes, _) in rounds.items()}
        counts = {
            state: sum(one.state == state for one in outcomes.values()) for state in ("survived", "failed", "skipped")
        }
        took = [one.seconds for one in outcomes.values() if one.state == "survived"]
        failures = [{"seed": seed, "said": one.said} for seed, one in outcomes.items() if one.state == "failed"]
        seconds = {"seconds": spread(took)} if took else {}
        faults.append({"fault": fault, "test": test, **counts, **seconds, "failures": failures})
    return {
        "question": "how often does a sweep survive each fault",
        "rounds": len(rounds),
        "rounds_asked": asked,
        "seeds": list(rounds),
        "failures": sum(len(fault["failures"]) for fault in faults),
        "round_seconds": spread([seconds for _, seconds in rounds.values()]),
        "faults": faults,
    }


def main() -> None:
    """Runs the rounds, writes the result after each, and fails if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next ones count on")
    parser.add_argument("--result", default="faults", help="name of the result")
    asked = parser.parse_args()
    rounds: dict[int, tuple[dict[str, Outcome], float]] = {}
    code = commit()
    for seed in range(asked.seed, asked.seed + asked.rounds):
        print(f"round {len(rounds) + 1} of {asked.rounds}, seed {seed}", flush=True)
        began = time.monotonic()
        outcomes = run_round(seed)
        if commit() != code:
            sys.exit(f"the code became {commit()} in this round, and was {code}: the round does not count")
        rounds[seed] = outcomes, time.monotonic() - began
        found = summary(rounds, asked.rounds)
        record(asked.result, found, packages=("ray", "mlflow", "optuna", "torch", "sqlalchemy"))
        for test, outcome in outcomes.items():
            if outcome.state != "survived":
                print(f"  {outcome.state}: {FAULTS[test]}: {outcome.said}", flush=True)
        print(f"  {rounds[seed][1]:.0f} s; {found['failures']} failures so far", flush=True)
    sys.exit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()
