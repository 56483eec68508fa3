"""Does the API keep what its OpenAPI document says, whatever it is sent? Schemathesis asks; no answer may be a 5xx.

    python benchmarks/api_fuzzing.py [--cases 5000]

The API runs on a SQLite store with a sweep, trials and a model in it, asks for keys and launches nothing.
Schemathesis sends legal and illegal requests (its phases examples, coverage and fuzzing) and follows the document's
links from answer to request (stateful), in rounds with seeds of their own until the cases asked for were run.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import uvicorn

from benchmarks.recorded import record
from service.access import Scope, new_key
from service.adapters.clock import SystemClock
from service.adapters.memory_launcher import MemoryLauncher
from service.adapters.memory_tracker import MemoryTracker
from service.adapters.sql_access import SqlAccess
from service.adapters.sql_store import SqlStore
from service.api.app import create_app
from service.domain import Measurement, SweepState, Trial, TrialState
from service.inference.predictor import Predictors
from service.inference.serving_config import Serving, ServingTable
from service.settings import Settings
from service.submission import Submissions
from trainables.data.dataset import Dataset, Split
from trainables.data.digits import Digits
from trainables.models.narrow_resnet import NarrowResNetConfig
from trainables.preprocessing import Preprocessing
from trainables.saved_model import save_model
from trainables.tasks import Classification
from trainables.trial import TrainConfig, TrialConfig

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
)
"""Without `negative_data_rejection`, which takes numbers for illegal where names of metrics are asked for, as by
`/curves`; in a query they are texts like any others."""


@contextmanager
def served(home: Path) -> Iterator[tuple[str, str]]:
    """The API's URL and a key for all of it."""
    settings, clock = Settings(home=home, require_keys=True, rate_limit=10**9), SystemClock()
    with closing(SqlStore(settings.database_url)) as store:
        store.migrate()
        access = SqlAccess(store.engine)
        key, text = new_key("fuzzer", [Scope.ADMIN], at=clock.now())
        access.add_key(key)
        populate(store, home)
        predictors = Predictors(store, serving=ServingTable({}, Serving(engine="eager")))
        app = create_app(
            store=store,
            access=access,
            launcher=MemoryLauncher(),
            tracker=MemoryTracker(),
            clock=clock,
            settings=settings,
            predictors=predictors,
        )
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", text
        finally:
            server.should_exit = True
            thread.join(10)
            predictors.close()


def populate(store: SqlStore, home: Path) -> None:
    """A sweep with trials, measurements and a model of random weights: something to show for every operation."""
    clock = SystemClock()
    objectives = [{"metric": "validation/accuracy", "mode": "max"}, {"metric": "model/parameters", "mode": "min"}]
    spec = {"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}, "objectives": objectives}
    submissions = Submissions(store=store, clock=clock, weights_root=home / "weights", cluster=MemoryLauncher())
    sweep = submissions.create(spec)
    store.count_attempt(sweep.id)
    store.move_sweep(sweep.id, SweepState.RUNNING, at=clock.now())
    for number in range(9):
        trial = Trial(
            id=f"{sweep.id}-{number:04}",
            sweep_id=sweep.id,
            number=number,
            point={"train.learning_rate": 0.001 * (number + 1)},
            created_at=clock.now(),
        )
        store.add_trial(trial)
        metrics = {"validation/accuracy": 0.5, "train/loss": float("nan")}
        store.add_measurement(Measurement(trial_id=trial.id, step=1, at=clock.now(), metrics=metrics))
        store.move_trial(trial.id, TrialState.COMPLETED, at=clock.now(), values=(0.5 + 0.01 * number, 1000.0 + number))
    nothing = Split(images=np.zeros((0, 1, 16, 16), np.uint8), targets=np.zeros(0, np.int64))
    preprocessing, task = Preprocessing(height=16, width=16), Classification(classes=("cat", "dog", "newt"))
    config = NarrowResNetConfig(channels=(2, 4, 4, 4))
    folder = home / "sweeps" / "model"
    save_model(
        folder,
        trial=TrialConfig(family="narrow_resnet", model=config, train=TrainConfig(), data=Digits()),
        dataset=Dataset("animals", "0" * 16, task, preprocessing, nothing, nothing, nothing),
        weights=config.build(input_shape=preprocessing.input_shape, outputs=task.outputs).state_dict(),
        step=1,
        metrics={},
    )
    store.add_model_version(
        name="digits", sweep_id=sweep.id, trial_id=f"{sweep.id}-0000", value=0.5, path=str(folder), at=clock.now()
    )


@dataclass
class Found:
    """What rounds of Schemathesis found together."""

    phases: Counter[str] = field(default_factory=Counter)
    """Cases by phase."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Answers by status."""
    operations: Counter[str] = field(default_factory=Counter)
    """Cases by operation; those of chains of requests are counted as one."""
    checks: Counter[str] = field(default_factory=Counter)
    """Checks that passed."""
    failures: list[str] = field(default_factory=list)
    unanswered: int = 0

    @property
    def cases(self) -> int:
        """Requests sent."""
        return self.phases.total()

    def add(self, report: Path) -> None:
        """Reads the events of a round."""
        with report.open(encoding="utf-8") as lines:
            for line in lines:
                scenario = json.loads(line).get("ScenarioFinished")
                if scenario is None:
                    continue
                recorder = scenario["recorder"]
                for interaction in recorder.get("interactions", {}).values():
                    self.phases[scenario["phase"]] += 1
                    self.operations[recorder["label"]] += 1
                    if interaction.get("response") is None:
                        self.unanswered += 1
                    else:
                        self.statuses[interaction["response"]["status_code"]] += 1
                for checks in recorder.get("checks", {}).values():
                    for check in checks:
                        if check["status"] == "success":
                            self.checks[check["name"]] += 1
                        else:
                            self.failures.append(f"{recorder['label']}: {check['name']}")


def fuzz(url: str, key: str, *, phases: str, examples: int, seed: int, folder: Path) -> Path:
    """One round of Schemathesis: the file with its events."""
    report = folder / f"round-{seed}.ndjson"
    command = [
        *(str(Path(sys.executable).parent / "st"), "run", f"{url}/openapi.json", "--no-color", "--continue-on-failure"),
        *("--header", f"Authorization:Bearer {key}", "--checks", ",".join(CHECKS), "--phases", phases),
        *("--max-examples", str(examples), "--seed", str(seed), "--suppress-health-check", "all"),
        *("--request-timeout", "60"),  # on a busy machine a study's networks take longer than 10 s to check
        *("--report", "ndjson", "--report-ndjson-path", str(report)),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr)
    assert report.exists(), f"Schemathesis ended with {done.returncode}"
    return report


def main() -> None:
    """Asks for the arguments, fuzzes, prints and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000, help="so many at least")
    parser.add_argument("--examples", type=int, default=50, help="an operation, in a round")
    arguments = parser.parse_args()
    found, seed, began = Found(), 0, time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder, served(Path(folder) / "home") as (url, key):
        while found.cases < arguments.cases:
            seed += 1
            phases = "examples,coverage,fuzzing,stateful" if seed == 1 else "fuzzing,stateful"  # coverage is the same
            report = fuzz(url, key, phases=phases, examples=arguments.examples, seed=seed, folder=Path(folder))
            found.add(report)
            print(f"round {seed}: {found.cases} cases, {len(found.failures)} failures")
    server_errors = sum(count for status, count in found.statuses.items() if status >= 500)
    result = {
        "question": "answers of the API that are a 5xx or break its OpenAPI document",
        "measured": {
            "cases": found.cases,
            "server_errors": server_errors,
            "unanswered": found.unanswered,
            "failed_checks": collections.Counter(found.failures),
            "passed_checks": found.checks,
            "cases_by_phase": found.phases,
            "cases_by_operation": found.operations,
            "answers_by_status": {str(status): count for status, count in sorted(found.statuses.items())},
            "rounds": seed,
            "seconds": time.perf_counter() - began,
        },
    }
    record("api_fuzzing", result, packages=("schemathesis", "hypothesis", "fastapi", "sqlalchemy", "uvicorn"))
    print(json.dumps(result["measured"], indent=1))
    sys.exit(1 if found.failures or server_errors or found.unanswered else 0)


if __name__ == "__main__":
    main()
