"""The API's answers as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from service.cli.text import number, point, styled, when

Json = Mapping[str, Any]


def table(*columns: str) -> Table:
    """An empty table in the house's style."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def sweeps(found: Iterable[Json]) -> Table:
    """Sweeps, a line each."""
    made = table("id", "name", "state", "submitted", "reason")
    for sweep in found:
        made.add_row(
            sweep["id"],
            escape(sweep["name"]),
            styled(sweep["state"]),
            when(sweep["created_at"]),
            escape(sweep["reason"]),
        )
    return made


def trials(found: Sequence[Json], *, objective: str, ranked: bool = False) -> Table:
    """Trials, a line each; ranked: they are in order of merit."""
    made = table(*(["rank"] if ranked else []), "trial", "state", "epochs", objective, "point")
    for rank, trial in enumerate(found, 1):
        made.add_row(
            *([str(rank)] if ranked else []),
            trial["id"],
            styled(trial["state"]),
            str(trial["step"]),
            number(trial["values"][0] if trial["values"] else None),
            escape(point(trial["point"])),
        )
    return made


def sweep(found: Json) -> Table:
    """One sweep, a line for each thing to know."""
    spec, best = found["spec"], found["best"]
    counts = ", ".join(f"{count} {state}" for state, count in found["counts"].items())
    lines = {
        "id": found["id"],
        "name": escape(found["name"]),
        "state": styled(found["state"]) + (f" ({escape(found['reason'])})" if found["reason"] else ""),
        "family": escape(spec["family"]),
        "data": escape(str(spec["data"]["name"])),
        "objective": f"{spec['objectives'][0]['metric']} ({spec['objectives'][0]['mode']})",
        "trials": f"{counts or 'none yet'} of {spec['search']['trials']}",
        "best": f"{number(best['values'][0])} by {best['id']}: {escape(point(best['point']))}" if best else "-",
        "submitted": when(found["created_at"]),
        "started": when(found["started_at"]),
        "finished": when(found["finished_at"]),
        "MLflow": found["mlflow_url"] or "-",
    }
    made = Table(box=None, show_header=False, pad_edge=False)
    for name, value in lines.items():
        made.add_row(f"[dim]{name}[/]", value)
    return made


def named(found: Iterable[Json]) -> Table:
    """Families or datasets, a line each."""
    made = table("name", "what")
    for one in found:
        made.add_row(one["name"], escape(one["summary"]))
    return made


def stored(found: Iterable[Json]) -> Table:
    """Datasets on this machine, a line each."""
    made = table("name", "digest", "state", "images", "size", "settings")
    for column in made.columns[:-1]:
        column.no_wrap = True
    for one in found:
        settings = {key: value for key, value in (one["settings"] or {}).items() if key != "name" and value is not None}
        made.add_row(
            one["name"],
            one["digest"],
            "[green]whole[/]" if one["finished"] else "[yellow]unfinished[/]",
            number(one["images"]),
            decimal(one["bytes"]),
            escape(point(settings)),
        )
    return made


def predictions(images: Sequence[str], answer: Json) -> Table:
    """What a model says, a line an image."""
    made = table("image", "class", "probability")
    for image, said in zip(images, answer["predictions"], strict=True):
        made.add_row(escape(image), escape(str(said["class"])), f"{said['probabilities'][said['class']]:.3f}")
    return made
