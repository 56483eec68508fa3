"""`sweepserve analyze` on models in a home of its own, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from service.adapters import mlflow_analyses
from service.cli.commands import main
from service.errors import Unavailable
from service.settings import Settings
from trainables import checkpoint
from trainables.analysis.analyses import ANALYSES
from trainables.analysis.analysis import Analysis
from trainables.data.dataset import Dataset
from trainables.data.digits import Digits
from trainables.saved_model import SavedModel
from trainables.training import Training
from trainables.trial import TrialConfig

Run = Callable[..., tuple[int, str, str]]
TRIAL = "ab12cd34-0001"


@pytest.fixture(name="run")
def _run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SWEEPSERVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SWEEPSERVE_URL", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["analyze", *arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> Callable[..., Path]:
    """Trains for an iteration, and says where the checkpoint is."""

    def make(folder: Path, **data: Any) -> Path:
        trial = TrialConfig.from_dict(
            {
                "family": "shared_resnet",
                "model": {"blocks": [1, 1, 1], "channels": [2, 2, 2], "sharing": "raw", "death_rate": 0},
                "train": {"max_iterations": 1, "batch_size": 8},
                "data": {"name": "digits", "image_size": 8, "train": 8, "validation": 8, "test": 8, **data},
            }
        )
        training = Training(trial, trial.data.load(tmp_path / "home" / "data"), device=torch.device("cpu"))
        training.advance()
        return checkpoint.write(folder, training)

    return make


def test_a_folder_is_analysed_into_a_folder(run: Run, made: Callable[..., Path], tmp_path: Path) -> None:
    """Pictures and numbers are where it says; a checkpoint is as good as the model in it, and another goes beside."""
    path = made(tmp_path / "somewhere")
    status, out, err = run(str(path), "ablation", "--with", str(path / "model"), "-o", "here/pictures")
    names = [f"here/pictures/ablation{end}" for end in ("-lower.png", "-middle.png", "-upper.png", ".json")]
    assert (status, out.splitlines(), err) == (0, names, "")
    assert list(json.loads(Path(names[-1]).read_text())["models"]) == ["raw (1)", "raw (2)"]
    assert Path(names[0]).read_bytes().startswith(b"\x89PNG")


def test_a_trial_is_found_by_its_id_and_shown_on_its_page(
    run: Run, made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is told to MLflow; where MLflow refuses, that is said and the files stay."""
    path = made(tmp_path / "home" / "sweeps" / "ab12cd34" / "trials" / TRIAL)
    logged = []

    def log(settings: Settings, trial_id: str, name: str, files: list[Path]) -> str:
        logged.append((trial_id, name, [file.name for file in files]))
        if len(logged) > 1:
            raise Unavailable("MLflow is away")
        return "http://mlflow/page"

    monkeypatch.setattr(mlflow_analyses, "log_analysis", log)
    status, out, _ = run(TRIAL, "trajectories")
    assert status == 0
    assert out.splitlines()[-1] == "http://mlflow/page (analyses/trajectories)"
    status, out, err = run(str(path), "trajectories")
    assert (status, err) == (0, "sweepserve: not in MLflow: MLflow is away\n")
    assert logged == [(TRIAL, "trajectories", ["trajectories.png", "trajectories.json"])] * 2
    assert (tmp_path / "trajectories" / "trajectories.png").exists()


def test_models_are_tried_on_other_data(run: Run, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some settings of their own data are changed; where the results go says which data it was."""

    def count(models: Sequence[SavedModel], dataset: Dataset) -> Analysis:
        return Analysis(numbers={"images": len(dataset.test)})

    monkeypatch.setitem(ANALYSES, "count", count)  # type: ignore[arg-type]
    path = made(Path("somewhere"))
    status, out, _ = run(str(path), "count", "--data", "test=4", "--data", "seed=3")
    folder = f"count-digits-{Digits(image_size=8, train=8, validation=8, test=4, seed=3).digest}"
    assert (status, out) == (0, f"{folder}/count.json\n")
    assert json.loads(Path(folder, "count.json").read_text()) == {"images": 4}


def test_an_analysis_that_takes_steps_gets_them(
    run: Run, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others refuse them."""

    def count(models: Sequence[SavedModel], dataset: Dataset, *, steps: int | None = None) -> Analysis:
        return Analysis(numbers={"steps": steps})

    monkeypatch.setitem(ANALYSES, "count", count)  # type: ignore[arg-type]
    path = made(Path("somewhere"))
    for options, steps in (([], None), (["--steps", "40"], 40)):
        assert run(str(path), "count", *options)[0] == 0
        assert json.loads(Path("count/count.json").read_text()) == {"steps": steps}
    assert run(str(path), "weights", "--steps", "40") == (1, "", "sweepserve: --steps: weights takes no steps\n")


def test_data_that_a_model_cannot_be_tried_on_is_refused(run: Run, made: Callable[..., Path]) -> None:
    """By the rules of a spec's data, and where the model would have to be another one."""
    path = made(Path("somewhere"))
    size = "--data: need images of the size that the models know, (1, 8, 8), got (1, 16, 16)"
    for setting, said in (
        ("tset=4", "  tset: unknown setting 'tset'; did you mean 'test'?"),
        ("test=0", "  test: need a whole number >= 1, got 0"),
        ("image_size=16", f"sweepserve: {size}"),
    ):
        status, out, err = run(str(path), "ablation", "--data", setting)
        assert (status, out, err.splitlines()[-1]) == (1, "", said)


def test_a_name_is_that_of_the_champion(
    run: Run,
    made: Callable[..., Path],
    service: Any,
    serve: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not of the newest version, where somebody promoted another one."""
    champion, _ = service.model(), service.model()
    service.store.promote("digits", champion.version, at=service.clock.now())
    made(tmp_path / "home" / "sweeps" / champion.sweep_id / "trials" / champion.trial_id)
    monkeypatch.setattr(mlflow_analyses, "log_analysis", lambda _, trial_id, *rest: trial_id)
    monkeypatch.setenv("SWEEPSERVE_URL", serve(service.app))
    monkeypatch.setitem(ANALYSES, "nothing", lambda *_: Analysis())  # type: ignore[arg-type]
    status, out, _ = run("digits", "nothing")
    assert (status, out.splitlines()[-1]) == (0, f"{champion.trial_id} (analyses/nothing)")


def test_what_cannot_be_analysed_is_refused_in_a_line(run: Run, made: Callable[..., Path], tmp_path: Path) -> None:
    """Unknown analyses and models, folders without a model, models of different data."""
    path = made(tmp_path / "one")
    other = made(tmp_path / "other", seed=1)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ((str(path), "ablations"), "unknown analysis 'ablations'; did you mean 'ablation'?"),
        (("nosuch", "ablation"), "'nosuch' is no folder, no trial in "),
        (("empty", "ablation"), "no saved model in empty: "),
        ((str(path), "ablation", "--with", str(other)), "need models that were trained on one dataset, got digits-"),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (1, "")
        assert message in err
        assert len(err.splitlines()) == 1


def test_a_trial_whose_weights_were_removed_is_refused(run: Run, made: Callable[..., Path], tmp_path: Path) -> None:
    """In a line that says why, without asking the service."""
    made(tmp_path / "home" / "sweeps" / "ab12cd34" / "trials" / TRIAL)
    status, out, err = run("ab12cd34-0007", "weights")
    assert (status, out) == (1, "")
    assert err.strip().endswith(
        "trial ab12cd34-0007 has no weights here: its sweep keeps those of its best (resources.keep_best)"
    )
