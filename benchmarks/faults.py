"""Does a sweep survive every fault, every time?

    python benchmarks/faults.py --rounds 20

Each round runs the tests of every fault that a lab meets, the long cases too, against stacks of its own; two files of
tests at a time. Each test checks that its fault happened and that nothing was lost. The kills come at random moments,
others in each round: they follow from the round's seed, which is its number, and which `SWEEPSERVE_FAULT_SEED` gives to
a test that is run by itself. Of a round that was not survived the stacks' logs are kept, in a folder that is told. The
result is written after each round. Started again on the same code it goes on where it was cut off: other commits may
have come that change none of what a round runs. That must stay as it is meanwhile, since every driver that is started
imports it anew; a round through which it changed does not count.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from benchmarks.recorded import ROOT, code, record, results, spread

KILLS = "tests/faults/test_kills.py"
NEIGHBOURS = "tests/faults/test_neighbours.py"
DRIVE = "tests/service/driver/test_drive.py"
TRAINABLE = "tests/trainables/test_trainable.py"
APIS = "tests/service/test_two_apis.py::test_two_processes_share_a_store"
FAULTS: Mapping[str, str] = {
    "SIGKILL to API, driver, workers, MLflow, Ray and everything, twice each in one sweep, in random order": (
        f"{KILLS}::test_every_program_dies_in_random_order"
    ),
    "SIGKILL to the driver of a population": f"{KILLS}::test_a_population_survives_its_driver",
    "MLflow absent from the start of a sweep, then taking requests in silence to its end": (
        f"{NEIGHBOURS}::test_mlflow_is_absent_then_silent_and_has_everything_in_the_end"
    ),
    "PostgreSQL stopped at once and restarted, twice in a sweep": f"{NEIGHBOURS}::test_the_database_is_restarted",
    "a clock that jumps": "tests/service/test_clock_jumps.py",
    "SIGKILL to a node of the cluster, in the middle of a trial": (
        f"{DRIVE}::test_a_node_is_lost_and_its_trial_goes_on_elsewhere"
    ),
    "a worker that hangs": f"{DRIVE}::test_a_worker_that_hangs_is_replaced",
    "a trial that runs out of memory": f"{DRIVE}::test_a_trial_without_memory_is_tried_with_more_and_then_fails",
    "a trial whose loss becomes NaN, and one whose folder cannot be written": (
        f"{DRIVE}::test_a_sweep_runs_to_its_end"
    ),
    "too little room on the disk for another trial": (
        f"{DRIVE}::test_a_sweep_waits_for_room_on_the_disk_and_goes_on_by_itself"
    ),
    "a full disk in the middle of a trial": f"{TRAINABLE}::test_a_full_disk_costs_a_trial_its_newest_steps_at_most",
    "a full disk at the end of a trial": f"{TRAINABLE}::test_the_end_of_a_trial_waits_for_room",
    "a checkpoint that is lost or half written": f"{TRAINABLE}::test_the_newest_whole_checkpoint_stands_in",
    "a corrupt checkpoint, bit by bit and file by file": "tests/trainables/test_checkpoint.py",
    "two API processes over one store, racing duplicates of a submission, and SIGKILL to the one that acts": APIS,
}
"""Where what is done to a sweep is tested: a test, all its cases, or a file of tests.

Two processes begin with two files each, in this order: one with the kills, which are half of a round, and the clocks.
"""

RUN = (
    "service",
    "trainables",
    "search_spaces",
    "tests/conftest.py",
    "tests/ports.py",
    "tests/faults",
    "constraints.txt",
)
"""What a round runs, beside the tests' own files."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fault in one round."""

    state: str
    """`survived`, `failed` or `skipped`: the worst of its cases."""
    seconds: float
    said: str = ""
    """Why it failed or was skipped; else what the test wrote down of its fault."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round; its seed is its number."""

    seconds: float
    outcomes: Mapping[str, Outcome]
    """By fault."""

    @property
    def survived(self) -> bool:
        """Every fault was."""
        return all(outcome.state == "survived" for outcome in self.outcomes.values())


def run_round(seed: int) -> Round:
    """Runs the tests. One that ends is told at once; a fault of which the report has nothing was not survived."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", f"--junit-xml={report}"]
    command += ["--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder", *dict.fromkeys(FAULTS.values())]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "SWEEPSERVE_LONG_TESTS": "1",
        "SWEEPSERVE_FAULT_SEED": str(seed),
        "SWEEPSERVE_KEEP_LOGS": str(folder / "logs"),
    }
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            lines.append(line.rstrip())
            if told := re.search(r"\] (PASSED|FAILED|ERROR|SKIPPED) (\S+)", line):
                print(f"  {time.strftime('%H:%M:%S')} {told[1].lower():8}{told[2]}", flush=True)
            elif line.startswith("E "):
                print(line, end="", flush=True)
    cases = _cases(report) if report.exists() else {}
    outcomes = {}
    for fault, test in FAULTS.items():
        mine = [outcome for name, outcome in cases.items() if re.match(rf"{re.escape(test)}(::|\[|$)", name)]
        lost = Outcome("failed", 0.0, f"pytest ended with {pytest.returncode}: {' | '.join(lines[-3:])}")
        worst = min(mine, key=lambda one: ("failed", "skipped", "survived").index(one.state), default=lost)
        outcomes[fault] = Outcome(worst.state, sum(one.seconds for one in mine), worst.said)
    done = Round(time.monotonic() - began, outcomes)
    if done.survived:
        shutil.rmtree(folder)
    else:
        print(f"  what the stacks logged is in {folder}", flush=True)
    return done


def _cases(report: Path) -> dict[str, Outcome]:
    """By the ids of tests."""
    root = ET.parse(report)  # noqa: S314 - pytest wrote it just now
    found: dict[str, Outcome] = {}
    for case in root.iter("testcase"):
        name = f"{str(case.get('classname')).replace('.', '/')}.py::{case.get('name')}"
        outcome = _outcome(case)
        if name not in found or outcome.state != "survived":  # a test that passed may have an error at its end, too
            found[name] = outcome
    return found


def _outcome(case: ET.Element) -> Outcome:
    seconds, said = float(case.get("time", 0)), {child.tag: str(child.get("message", "")) for child in case}
    for tag, state in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if tag in said:
            return Outcome(state, seconds, said[tag][:500])
    return Outcome(
        "survived", seconds, "; ".join(f"{one.get('name')}: {one.get('value')}" for one in case.iter("property"))
    )


def summary(rounds: Mapping[int, Round], asked: int) -> dict[str, Any]:
    """How often each fault was survived, every failure with its seed, and the rounds themselves."""
    faults = []
    for fault, test in FAULTS.items():
        outcomes = {seed: one.outcomes[fault] for seed, one in rounds.items()}
        counts = {
            state: sum(one.state == state for one in outcomes.values()) for state in ("survived", "failed", "skipped")
        }
        took = [one.seconds for one in outcomes.values() if one.state == "survived"]
        failures = [{"seed": seed, "said": one.said} for seed, one in outcomes.items() if one.state == "failed"]
        seconds = {"seconds": spread(took)} if took else {}
        faults.append({"fault": fault, "test": test, **counts, **seconds, "failures": failures})
    newest_first = reversed(list(rounds.values()))
    return {
        "question": "how often does a sweep survive each fault",
        "rounds_asked": asked,
        "rounds": len(rounds),
        "rounds_in_a_row": sum(1 for _ in takewhile(lambda one: one.survived, newest_first)),
        "failures": sum(len(fault["failures"]) for fault in faults),
        "round_seconds": spread([one.seconds for one in rounds.values()]),
        "faults": faults,
        "by_seed": {str(seed): asdict(one) for seed, one in rounds.items()},
    }


def recorded(ours: str) -> dict[int, Round]:
    """The rounds by seed that the result has of this code; of code that is in no commit there are none."""
    result = results("faults")
    if result.get("code") != ours or not ours or ours.endswith("+changes"):
        return {}
    rounds = {}
    for seed, one in result["by_seed"].items():
        outcomes = {fault: Outcome(**outcome) for fault, outcome in one["outcomes"].items()}
        rounds[int(seed)] = Round(one["seconds"], outcomes)
    return rounds


def main() -> None:
    """Runs the rounds that are missing, writes the result after each, and fails if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="in all, with those that the result has of this code")
    asked = parser.parse_args()
    paths = sorted({*RUN, *(test.partition("::")[0] for test in FAULTS.values())})
    ours = code(*paths)
    rounds = recorded(ours)
    if rounds:
        print(f"the result has {len(rounds)} rounds of this code")
    for seed in range(len(rounds), asked.rounds):
        print(f"round {seed + 1} of {asked.rounds}, seed {seed}", flush=True)
        done = run_round(seed)
        if (now := code(*paths)) != ours:
            sys.exit(f"the code became {now} in this round, and was {ours}: the round does not count")
        rounds[seed] = done
        found = {**summary(rounds, asked.rounds), "code": ours}
        record("faults", found, packages=("ray", "mlflow", "optuna", "torch", "sqlalchemy"))
        for fault, outcome in done.outcomes.items():
            if outcome.state != "survived":
                print(f"  {outcome.state}: {fault}: {outcome.said}", flush=True)
        print(f"  {done.seconds:.0f} s; {found['rounds_in_a_row']} rounds in a row survived", flush=True)
    sys.exit(0 if rounds and all(one.survived for one in rounds.values()) else 1)


if __name__ == "__main__":
    main()
