"""The commands that change a sweep which is there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli.connection import SweepId, Url, connect
from service.cli.output import AsJson, Refused, print_json, say

app = typer.Typer()


@app.command()
def stop(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Ends a sweep when its running trials have reported; what it found stays."""
    with connect(url) as client:
        _show(client.stop(sweep_id), as_json=as_json)


@app.command()
def cancel(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Ends a sweep and its running trials at once; what it found stays."""
    with connect(url) as client:
        _show(client.cancel(sweep_id), as_json=as_json)


@app.command()
def pause(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Halts a sweep when its running trials have reported; `resume` goes on from there."""
    with connect(url) as client:
        _show(client.pause(sweep_id), as_json=as_json)


@app.command()
def resume(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Goes on with a sweep that was paused or stopped."""
    with connect(url) as client:
        _show(client.resume(sweep_id), as_json=as_json)


@app.command()
def extend(
    sweep_id: SweepId,
    trials: Annotated[int | None, typer.Option(min=1, help="So many in all.", show_default=False)] = None,
    time_budget: Annotated[str | None, typer.Option(help="So much in all, as 6h.", show_default=False)] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Gives a sweep more trials or more time; one that has ended goes on."""
    with connect(url) as client:
        _show(client.extend(sweep_id, trials=trials, time_budget=time_budget), as_json=as_json)


@app.command()
def retry(sweep_id: SweepId, as_json: AsJson = False, url: Url = None) -> None:
    """Runs a sweep's failed trials again."""
    with connect(url) as client:
        _show(client.retry(sweep_id), as_json=as_json)


@app.command()
def delete(
    sweep_id: SweepId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Without asking.")] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Removes a sweep with its checkpoints, its models and its runs in MLflow."""
    with connect(url) as client:
        sweep = client.sweep(sweep_id)
        if not yes and not typer.confirm(f"Delete {sweep['name']} {sweep_id} with all that it found?", err=True):
            raise Refused("nothing was deleted")
        _show(client.delete(sweep_id), as_json=as_json)


def _show(sweep: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(sweep)
    else:
        say(f"{sweep['id']} is {sweep['state']}")
