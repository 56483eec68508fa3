"""The commands of `sweepserve`. Those that only ask a running service import nothing heavy."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli import analyzing, data, keys, submitting, tables, verbs
from service.cli.connection import SweepId, Url, connect
from service.cli.output import AsJson, Refused, complain, print_json, print_table, say, settings, show_answer
from service.client import ClientError, NoAnswer
from service.errors import ServiceError
from trainables.set_aside import set_aside

app = typer.Typer(
    help="Hyperparameter sweeps for research vision models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(submitting.app)
app.add_typer(analyzing.app)
app.add_typer(verbs.app)
app.add_typer(data.app, name="data")
app.add_typer(keys.app, name="keys")


@app.command()
def up() -> None:
    """Runs the whole stack here: API, Ray head and MLflow server, until Ctrl-C."""
    from service.stack import up as run

    raise typer.Exit(run(settings()))


@app.command()
def demo() -> None:
    """Runs a first sweep from end to end: a stack, the sweep, its model asked about images."""
    from service.demo import demo as run

    raise typer.Exit(run(settings()))


@app.command()
def api() -> None:
    """Runs the API alone, on a Ray cluster and an MLflow server that are there."""
    with set_aside():
        from service.api.server import serve

    try:
        serve(settings())
    except (ServiceError, ValueError, OSError) as error:
        raise Refused(str(error)) from error


@app.command("list")
def list_sweeps(
    state: Annotated[list[str] | None, typer.Option(help="Only these states.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Only sweeps of this name.", show_default=False)] = None,
    family: Annotated[str | None, typer.Option(help="Only sweeps of this model family.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Lists sweeps, newest first."""
    with connect(url) as client:
        found = client.sweeps(states=state or (), name=name, family=family, limit=limit)
    show_answer(found, tables.sweeps(found), as_json=as_json)


@app.command()
def show(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Shows a sweep and its trials."""
    with connect(url) as client:
        sweep = client.sweep(sweep_id)
        trials = client.trials(sweep_id)
    if as_json:
        print_json({**sweep, "trials": trials})
        return
    print_table(tables.sweep(sweep))
    print_table(tables.trials(trials, objective=_objective(sweep)))


@app.command()
def leaderboard(
    sweep_id: SweepId,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Lists a sweep's points that have a completed trial, best first."""
    with connect(url) as client:
        spec = client.sweep(sweep_id)["spec"]
        found = client.leaderboard(sweep_id, limit=limit)
    show_answer(found, tables.leaderboard(found, spec), as_json=as_json)


@app.command()
def pareto(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Lists the Pareto front of a sweep with several objectives: the points that no other one beats in everything."""
    with connect(url) as client:
        spec = client.sweep(sweep_id)["spec"]
        found = client.pareto(sweep_id)
    show_answer(found, tables.leaderboard(found, spec), as_json=as_json)


@app.command()
def curves(
    sweep_id: SweepId,
    metric: Annotated[
        list[str] | None, typer.Option(help="Which; default: the first objective.", show_default=False)
    ] = None,
    trial: Annotated[list[str] | None, typer.Option(help="Only the trials of these ids.", show_default=False)] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only trials in these states.", show_default=False)] = None,
    points: Annotated[int, typer.Option(min=1, max=100_000, help="So many of each curve at most.")] = 40,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Shows what a sweep's trials reported after each step (by default an epoch), a line each."""
    with connect(url) as client:
        found = client.curves(sweep_id, metrics=metric or (), trials=trial or (), states=state or (), points=points)
    show_answer(found, tables.curves(found), as_json=as_json)
    if not as_json and not any(curve["steps"] for curve in found):
        say("nothing has been measured yet")


@app.command()
def importance(
    sweep_id: SweepId,
    objective: Annotated[
        str | None, typer.Option(help="For which; default: the first one.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Tells how much each searched parameter matters for an objective."""
    with connect(url) as client:
        found = client.importance(sweep_id, objective=objective)
    show_answer(found, tables.importance(found), as_json=as_json)
    if not as_json:
        say(f"shares in the spread of {found['objective']} among {found['points']} completed points")


@app.command()
def logs(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Prints what the sweep's drivers printed."""
    with connect(url) as client:
        log = client.logs(sweep_id)
    if as_json:
        print_json({"log": log})
    else:
        say(log, end="")


@app.command()
def predict(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name: that of its sweep.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    steps: Annotated[int | None, typer.Option(help="Of a recurrent model; as trained if left out.")] = None,
    evolution: Annotated[
        bool, typer.Option("--evolution", help="A recurrent model's answers after each step.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Asks a model about images."""
    with connect(url) as client:
        try:
            answer = client.predict(name, images, steps=steps, evolution=evolution)
        except OSError as error:
            raise Refused(f"{error.filename}: {error.strerror}") from error
    show_answer(answer, tables.predictions([str(image) for image in images], answer), as_json=as_json)
    if not as_json:
        say(f"{answer['model']} version {answer['version']}, trial {answer['trial_id']}")


@app.command()
def audit(
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Lists what was changed and by whom, newest first."""
    with connect(url) as client:
        found = client.deeds(limit=limit)
    show_answer(found, tables.deeds(found), as_json=as_json)


@app.command()
def families(as_json: AsJson = False, url: Url = None) -> None:
    """Lists the model families."""
    with connect(url) as client:
        found = client.families()
    show_answer(found, tables.named(found), as_json=as_json)


@app.command()
def datasets(as_json: AsJson = False, url: Url = None) -> None:
    """Lists the datasets."""
    with connect(url) as client:
        found = client.datasets()
    show_answer(found, tables.named(found), as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits; what the user got wrong is said in a line, or a line each, on stderr."""
    # MLflow's import would make an id for its statistics and keep it in the user's home.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        app(arguments, prog_name="sweepserve")
    except ClientError as error:
        hint = "; start it with `sweepserve up`, or say where it is with --url" if isinstance(error, NoAnswer) else ""
        # Where the request itself is at fault the answer's own sentence has all its faults.
        unsaid = [one for one in error.errors if str(one.get("detail")) not in error.detail]
        complain(error.detail + hint, [f"{one.get('pointer') or '/'}: {one.get('detail')}" for one in unsaid])
        sys.exit(1)
    except Refused as error:
        complain(str(error), error.faults)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _objective(sweep: dict[str, Any]) -> str:
    return str(sweep["spec"]["objectives"][0]["metric"])
