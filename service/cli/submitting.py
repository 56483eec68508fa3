"""The commands that make sweeps, and the one that follows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from search_spaces import full, read_yaml, scaled, studies, study
from service.cli import tables
from service.cli.connection import SweepId, Url, connect
from service.cli.output import AsJson, Refused, complain, print_json, print_table, say
from service.cli.watching import follow
from service.client import Client

app = typer.Typer()
File = Annotated[str, typer.Argument(metavar="FILE", help="A spec in YAML or JSON, or the name of a packaged study.")]
Scaled = Annotated[bool, typer.Option("--scaled", help="Cut down to a small machine, by the spec's own `scale`.")]
Key = Annotated[
    str | None,
    typer.Option(help="Idempotency key: submitting again with it gives the same sweep.", show_default=False),
]
Watch = Annotated[bool, typer.Option("--watch", help="Then follow it to its end.")]


@app.command()
def submit(
    file: File,
    small: Scaled = False,
    key: Key = None,
    watch: Watch = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Submits a sweep."""
    spec = _spec(file, small=small)
    with connect(url) as client:
        _submitted(client, client.submit(spec, key=key), watch=watch, as_json=as_json)


@app.command()
def validate(file: File, small: Scaled = False, as_json: AsJson = False, url: Url = None) -> None:
    """Checks a spec and shows what would run, without running it."""
    with connect(url) as client:
        preview = client.validate(_spec(file, small=small))
    if as_json:
        print_json(preview)
        return
    print_table(tables.preview(preview))
    print_table(tables.first_points(preview["first"]))


@app.command()
def clone(
    sweep_id: SweepId,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PART=VALUE", help="A part of the spec in YAML: search={trials: 80}"),
    ] = None,
    key: Key = None,
    watch: Watch = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Submits a sweep with another one's spec, changed where `--set` says so."""
    changes: dict[str, Any] = {}
    for text in change or ():
        part, found, value = text.partition("=")
        if not found:
            raise Refused(f"need --set PART=VALUE, got {text!r}")
        if part in changes:
            raise Refused(f"--set {part}: is set twice")
        try:
            changes[part] = read_yaml(value)
        except ValueError as error:
            raise Refused(f"--set {part}: {error}") from error
    with connect(url) as client:
        _submitted(client, client.clone(sweep_id, changes, key=key), watch=watch, as_json=as_json)


@app.command("watch")
def watch_sweep(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Follows a sweep to its end; the exit status is 1 if it failed. Ctrl-C leaves it running."""
    with connect(url) as client:
        _watch(client, client.sweep(sweep_id), as_json=as_json)


def _submitted(client: Client, sweep: dict[str, Any], *, watch: bool, as_json: bool) -> None:
    if as_json:
        print_json(sweep)
    elif not watch:
        say(f"submitted {sweep['name']} as {sweep['id']}; follow it with: sweepserve watch {sweep['id']}")
    if watch:
        _watch(client, sweep, as_json=as_json)


def _spec(file: str, *, small: bool) -> dict[str, Any]:
    try:
        if not Path(file).exists() and file in studies():
            return study(file, small=small)
        spec = read_yaml(Path(file).read_text(encoding="utf-8"))
        if not isinstance(spec, dict):
            raise Refused(f"{file}: need a mapping of settings (name, family, data, ...), got {type(spec).__name__}")
        return scaled(spec) if small else full(spec)
    except FileNotFoundError as error:
        known = ", ".join(studies())
        raise Refused(f"{file} is neither a file nor a packaged study; the studies are: {known}") from error
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{file}: {error}") from error


def _watch(client: Client, sweep: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        state = sweep["state"]
        for event in client.watch(sweep["id"], tell=complain):
            print_json(event, indent=None)
            state = event["data"]["state"] if event["kind"] == "sweep" else state
    else:
        try:
            watched = follow(sweep, client.watch(sweep["id"], tell=complain), Console())
        except KeyboardInterrupt:
            say(f"{sweep['id']} goes on; follow it again with: sweepserve watch {sweep['id']}")
            raise
        state = watched.state
        if (best := watched.best) is not None:
            say(f"best: trial {best['number']} with {watched.metric} {best['values'][0]:.4g}")
    if state == "failed":
        raise typer.Exit(1)
