"""The commands of `sweepserve`. Those that only ask a running service import nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from search_spaces import read_yaml, studies, study
from service.cli import data, tables
from service.cli.output import AsJson, Refused, complain, print_json, print_table, say, settings, show_answer
from service.cli.watching import follow
from service.client import Client, ClientError, NoAnswer
from service.domain import ServiceError

app = typer.Typer(
    help="Hyperparameter sweeps for research vision models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
Url = Annotated[
    str | None,
    typer.Option(
        help="Where the service is; default: SWEEPSERVE_URL, else SWEEPSERVE_HOST and _PORT.", show_default=False
    ),
]
SweepId = Annotated[str, typer.Argument(metavar="ID", help="The sweep's id.")]


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
    from service.api.server import serve

    try:
        serve(settings())
    except ServiceError as error:
        raise Refused(str(error)) from error


@app.command()
def submit(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A spec in YAML or JSON, or the name of a packaged study.")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Then follow it to its end.")] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Submits a sweep."""
    spec = _spec(file)
    with _client(url) as client:
        sweep = client.submit(spec)
        if as_json:
            print_json(sweep)
        elif not watch:
            say(f"submitted {sweep['name']} as {sweep['id']}; follow it with: sweepserve watch {sweep['id']}")
        if watch:
            _watch(client, sweep, as_json=as_json)


@app.command()
def watch(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Follows a sweep to its end; the exit status is 1 if it failed. Ctrl-C leaves it running."""
    with _client(url) as client:
        _watch(client, client.sweep(sweep_id), as_json=as_json)


@app.command("list")
def list_sweeps(
    state: Annotated[list[str] | None, typer.Option(help="Only these states.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Only sweeps of this name.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Lists sweeps, newest first."""
    with _client(url) as client:
        found = client.sweeps(states=state or (), name=name, limit=limit)
    show_answer(found, tables.sweeps(found), as_json=as_json)


@app.command()
def show(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Shows a sweep and its trials."""
    with _client(url) as client:
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
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Lists a sweep's completed trials, best first."""
    with _client(url) as client:
        objective = _objective(client.sweep(sweep_id))
        found = client.leaderboard(sweep_id, limit=limit)
    show_answer(found, tables.trials(found, objective=objective, ranked=True), as_json=as_json)


@app.command()
def stop(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Ends a sweep; its finished trials and its model stay."""
    with _client(url) as client:
        sweep = client.stop(sweep_id)
    if as_json:
        print_json(sweep)
    else:
        say(f"{sweep['id']} is {sweep['state']}")


@app.command()
def logs(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Prints what the sweep's drivers printed."""
    with _client(url) as client:
        log = client.logs(sweep_id)
    if as_json:
        print_json({"log": log})
    else:
        sys.stdout.write(log)


@app.command()
def predict(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name: that of its sweep.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Asks a model about images."""
    with _client(url) as client:
        try:
            answer = client.predict(name, images)
        except OSError as error:
            raise Refused(f"{error.filename}: {error.strerror}") from error
    show_answer(answer, tables.predictions([str(image) for image in images], answer), as_json=as_json)
    if not as_json:
        say(f"{answer['model']} version {answer['version']}, trial {answer['trial_id']}")


@app.command()
def families(as_json: AsJson = False, url: Url = None) -> None:
    """Lists the model families."""
    with _client(url) as client:
        found = client.families()
    show_answer(found, tables.named(found), as_json=as_json)


@app.command()
def datasets(as_json: AsJson = False, url: Url = None) -> None:
    """Lists the datasets."""
    with _client(url) as client:
        found = client.datasets()
    show_answer(found, tables.named(found), as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits; what the user got wrong is said in a line, or a line each, on stderr."""
    try:
        app(arguments, prog_name="sweepserve")
    except ClientError as error:
        hint = "; start it with `sweepserve up`, or say where it is with --url" if isinstance(error, NoAnswer) else ""
        complain(error.detail + hint, [f"{one.get('pointer') or '/'}: {one.get('detail')}" for one in error.errors])
        sys.exit(1)
    except Refused as error:
        complain(str(error), error.faults)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _client(url: str | None) -> Client:
    return Client(url or settings().api_url)


def _spec(file: str) -> dict[str, Any]:
    try:
        if not Path(file).exists() and file in studies():
            return study(file)
        spec = read_yaml(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(studies())
        raise Refused(f"{file} is neither a file nor a packaged study; the studies are: {known}") from error
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{file}: {error}") from error
    if not isinstance(spec, dict):
        raise Refused(f"{file}: need a mapping of settings (name, family, data, ...), got {type(spec).__name__}")
    return spec


def _watch(client: Client, sweep: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        state = sweep["state"]
        for event in client.watch(sweep["id"]):
            print_json(event, indent=None)
            state = event["data"]["state"] if event["kind"] == "sweep" else state
    else:
        try:
            watched = follow(sweep, client.watch(sweep["id"]), Console())
        except KeyboardInterrupt:
            say(f"{sweep['id']} goes on; follow it again with: sweepserve watch {sweep['id']}")
            raise
        state = watched.state
        if (best := watched.best) is not None:
            say(f"best: trial {best['number']} with {watched.metric} {best['values'][0]:.4g}")
    if state == "failed":
        raise typer.Exit(1)


def _objective(sweep: dict[str, Any]) -> str:
    return str(sweep["spec"]["objectives"][0]["metric"])
