"""`sweepserve analyze`: pictures and numbers of trained models, made here and put on the trial's page in MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connection import Url, connect
from service.cli.data import dataset_config
from service.cli.output import Refused, complain, say, settings
from service.client import ClientError
from service.errors import ServiceError
from trainables.config import nearest

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset, DatasetConfig
    from trainables.saved_model import SavedModel

app = typer.Typer()
MODEL = "model"
"""The folder of a checkpoint in which its model is."""


@app.command()
def analyze(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A saved model's folder, a trial's id, or a model's name.")
    ],
    analysis: Annotated[str, typer.Argument(metavar="ANALYSIS", help="Which: ablation, trajectories, ...")],
    others: Annotated[
        list[str] | None, typer.Option("--with", metavar="MODEL", help="Another one beside it.", show_default=False)
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="On other data than the models were trained on: a setting of it in YAML; once for each.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of dynamics: how far the models run; default: five times the steps of training.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The folder to write; default: the analysis's name, and the data's.",
            show_default=False,
        ),
    ] = None,
    url: Url = None,
) -> None:
    """Draws an analysis of trained models. That of a sweep's trial goes to its page in MLflow too.

    Names and ids are those of sweeps whose files this machine sees (SWEEPSERVE_HOME); only names ask the service, for
    their champions.
    """
    from trainables.analysis.analyses import ANALYSES

    if analysis not in ANALYSES:
        raise Refused(f"unknown analysis {analysis!r}; {nearest(analysis, list(ANALYSES))}")
    analyse = ANALYSES[analysis]
    if steps is not None:
        if "steps" not in signature(analyse).parameters:
            raise Refused(f"--steps: {analysis} takes no steps")
        analyse = partial(analyse, steps=steps)
    folders = [_folder(one, url) for one in (model, *(others or ()))]
    models = [_load(folder) for folder in folders]
    try:
        dataset = _dataset(models, data or ())
        result = analyse(models, dataset)
    except ValueError as error:
        raise Refused(f"{analysis}: {error}") from error
    contents = {f"{name}.png": picture for name, picture in result.pictures.items()}
    contents[f"{analysis}.json"] = (json.dumps(result.numbers) + "\n").encode()
    name = f"{analysis}-{dataset.name}-{dataset.digest}" if data else analysis
    files = _write(output or Path(name), contents)
    trial = _trial_of(folders[0])
    if trial is not None:
        _log(trial, name, files)


def _folder(model: str, url: str | None) -> Path:
    """Where the saved model is."""
    from trainables import checkpoint

    path = Path(model)
    if path.is_dir():
        return path / MODEL if (path / MODEL).is_dir() else path
    found = _trials(model)
    sweep_id, _, number = model.rpartition("-")
    if not found and number.isdecimal() and settings().trials(sweep_id).is_dir():
        raise Refused(f"trial {model} has no weights here: its sweep keeps those of its best (resources.keep_best)")
    if not found:
        try:
            with connect(url) as client:
                versions = client.model(model)
        except ClientError as error:
            raise Refused(f"{model!r} is no folder, no trial in {settings().sweeps_root}, and: {error}") from error
        (champion,) = [one for one in versions["versions"] if one["version"] == versions["champion"]]
        found = _trials(champion["trial_id"])
    newest_checkpoint = checkpoint.latest(found[0]) if found else None
    if newest_checkpoint is None:
        raise Refused(f"no checkpoint of {model!r} in {settings().sweeps_root}")
    return newest_checkpoint / MODEL


def _trials(trial_id: str) -> list[Path]:
    """The trial's folder, if it is here."""
    return [path for path in settings().sweeps_root.glob("*/trials/*") if path.name == trial_id]


def _trial_of(folder: Path) -> str | None:
    """The id of the trial whose model this is; None: it is not in a sweep's folder."""
    place, root = folder.resolve(), settings().sweeps_root.resolve()
    if not place.is_relative_to(root):
        return None
    parts = place.relative_to(root).parts
    return parts[2] if len(parts) > 2 and parts[1] == "trials" else None


def _load(folder: Path) -> SavedModel:
    from trainables.saved_model import load_model

    try:
        return load_model(folder)
    except (FileNotFoundError, ValueError) as error:
        raise Refused(f"no saved model in {folder}: {error}") from error


def _dataset(models: list[SavedModel], changes: Sequence[str]) -> Dataset:
    """The one that the models were trained on, or one with changed settings."""
    from trainables.data.dataset import DataUnavailable
    from trainables.trial import TrialConfig

    configs = [_changed(TrialConfig.from_dict(model.trial).data, changes) for model in models]
    if len({config.digest for config in configs}) > 1:
        told = ", ".join(f"{config.name}-{config.digest}" for config in configs)
        raise Refused(f"need models that were trained on one dataset, got {told}")
    try:
        return configs[0].load(settings().data_root, reserve=settings().data_reserve)
    except DataUnavailable as error:
        raise Refused(str(error)) from error


def _changed(trained: DatasetConfig, changes: Sequence[str]) -> DatasetConfig:
    """Other data that still asks a model what it learned, of images of the same size."""
    defaults = {key: value for key, value in trained.to_dict().items() if key != "name"}
    config = dataset_config(trained.name, changes, defaults)
    before, after = trained.preprocessing.input_shape, config.preprocessing.input_shape
    if after != before:
        raise Refused(f"--data: need images of the size that the models know, {before}, got {after}")
    if config.task != trained.task:
        raise Refused(f"--data: need the task that the models learned, {trained.task.kind}, got {config.task.kind}")
    return config


def _write(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    files = [folder / name for name in contents]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.write_bytes(contents[file.name])
            say(str(file))
    except OSError as error:
        raise Refused(f"{error.filename}: {error.strerror}") from error
    return files


def _log(trial: str, name: str, files: Sequence[Path]) -> None:
    """Where MLflow does not take them, what was written stays written."""
    from service.adapters.mlflow_analyses import log_analysis

    try:
        say(f"{log_analysis(settings(), trial, name, files)} (analyses/{name})")
    except ServiceError as error:
        complain(f"not in MLflow: {error}")
