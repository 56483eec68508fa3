"""A sweep as the documentation of Ray Tune has it: a function trainable, OptunaSearch and the MLflow callback.

    python benchmarks/peers/tune_optuna_mlflow.py --mlflow http://127.0.0.1:5000

From Ray's examples `optuna_example.py` and `mlflow_example.py` (in its package, and in its documentation under "Running
Tune experiments with Optuna" and "Using MLflow with Tune"). Left out of them: the `time.sleep(0.1)` of each step, which
stands for training, and `save_artifact=True`, which would upload each trial's folder. The steps compute one formula and
keep nothing, so that nothing is counted but what the libraries take. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch


def evaluation_fn(step: int, width: float, height: float) -> float:
    """What stands for training."""
    return (0.1 + width * step / 100) ** (-1) + height * 0.1


def easy_objective(config: dict[str, Any]) -> None:
    """A trial."""
    width, height = config["width"], config["height"]
    for step in range(config["steps"]):
        intermediate_score = evaluation_fn(step, width, height)
        tune.report({"iterations": step, "mean_loss": intermediate_score})


def main() -> None:
    """Runs the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlflow", required=True, help="address of the server")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--concurrent", type=int, default=2)
    arguments = parser.parse_args()
    ray.init("local", configure_logging=False, num_cpus=arguments.concurrent)
    algo = ConcurrencyLimiter(OptunaSearch(), max_concurrent=arguments.concurrent)
    tuner = tune.Tuner(
        easy_objective,
        tune_config=tune.TuneConfig(metric="mean_loss", mode="min", search_alg=algo, num_samples=arguments.trials),
        run_config=tune.RunConfig(
            name="mlflow",
            callbacks=[MLflowLoggerCallback(tracking_uri=arguments.mlflow, experiment_name="example")],
        ),
        param_space={
            "steps": arguments.steps,
            "width": tune.uniform(0, 20),
            "height": tune.uniform(-100, 100),
            "activation": tune.choice(["relu", "tanh"]),
        },
    )
    began = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - began
    assert len(results) == arguments.trials, f"need {arguments.trials} trials, got {len(results)}"
    assert results.num_errors == 0, f"{results.num_errors} trials failed"
    assert all(result.metrics["training_iteration"] == arguments.steps for result in results)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
