"""The API's answers as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from service.cli.text import measured, number, point, sparkline, styled, when

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


def trials(found: Sequence[Json], *, objective: str) -> Table:
    """Trials, a line each."""
    copied = any(trial.get("exploits") for trial in found)
    made = table("trial", "state", "steps", objective, "point", *(["went on from"] if copied else []))
    for trial in found:
        made.add_row(
            trial["id"],
            styled(trial["state"]),
            str(trial["step"]),
            number(trial["values"][0] if trial["values"] else None),
            escape(point(trial["point"])),
            *([", ".join(f"{one['source']} at {one['step']}" for one in trial["exploits"])] if copied else []),
        )
    return made


def leaderboard(found: Sequence[Json], spec: Json) -> Table:
    """Points in order of merit, a line each; with repeats also what their trials came to in the first objective."""
    metrics, repeated = [one["metric"] for one in spec["objectives"]], spec["search"].get("repeats", 1) > 1
    place = "front" if len(metrics) > 1 else "rank"
    removed = any(trial["weights"] == "removed" for result in found for trial in result["trials"])
    more = [*(["mean", "sd", "best", "of"] if repeated else []), *(["weights"] if removed else [])]
    made = table(place, "trial", "steps", *metrics, *more, "point")
    for rank, result in enumerate(found, 1):
        trials, deviation = result["trials"], result["standard_deviation"]
        spread = [result["mean"][0], deviation[0] if deviation else None, result["best"][0], len(trials)]
        made.add_row(
            str(rank if len(metrics) == 1 else result["front"]),
            trials[0]["id"] if len(trials) == 1 else f"{trials[0]['id']} ...",
            str(max(trial["step"] for trial in trials)),
            *map(number, result["values"]),
            *(map(number, spread) if repeated else []),
            *([trials[0]["weights"]] if removed else []),
            escape(point(result["point"])),
        )
    return made


def curves(found: Sequence[Json]) -> Table:
    """Learning curves, a line each, those of a metric on one scale; then its least, its most and its last number."""
    made = table("trial", "state", "steps", "metric", "curve", "least", "most", "last")
    made.columns[4].no_wrap = True
    scales: dict[str, list[float]] = {}
    for one in found:
        for metric, values in one["values"].items():
            scales.setdefault(metric, []).extend(measured(values))
    for one in found:
        for metric, values in one["values"].items():
            numbers, all_numbers = measured(values), scales[metric]
            line = sparkline(values, low=min(all_numbers, default=0.0), high=max(all_numbers, default=0.0))
            ends = (min(numbers, default=None), max(numbers, default=None), values[-1] if values else None)
            steps = str(one["steps"][-1]) if one["steps"] else "0"
            made.add_row(one["trial_id"], styled(one["state"]), steps, escape(metric), line, *map(number, ends))
    return made


def importance(found: Json) -> Table:
    """Parameters and their shares, a line each."""
    made = table("parameter", "share", "")
    for name, share in found["importances"].items():
        made.add_row(escape(name), f"{share:.1%}", "█" * round(40 * share))
    return made


def sweep(found: Json) -> Table:
    """One sweep, a line for each thing to know."""
    spec, best = found["spec"], found["best"]
    reason = found["reason"] if found["reason"] != found["waiting"] else ""
    counts = ", ".join(f"{count} {state}" for state, count in found["counts"].items())
    lines: dict[str, str] = {
        "id": found["id"],
        "name": escape(found["name"]),
        "state": styled(found["state"]) + (f" ({escape(reason)})" if reason else ""),
        **({"waits": escape(found["waiting"])} if found["waiting"] else {}),
        "family": escape(spec["family"]),
        "data": escape(str(spec["data"]["name"])),
        "objective": f"{spec['objectives'][0]['metric']} ({spec['objectives'][0]['mode']})",
        "trials": f"{counts or 'none yet'} of {_asked(spec['search'])}",
        "best": f"{number(best['values'][0])} by {best['id']}: {escape(point(best['point']))}" if best else "-",
        "submitted": when(found["created_at"]),
        "started": when(found["started_at"]),
        "finished": when(found["finished_at"]),
        "MLflow": found["mlflow_url"] or "-",
    }
    return _facts(lines)


def _facts(lines: Json) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False)
    for name, value in lines.items():
        made.add_row(f"[dim]{name}[/]", value)
    return made


def _asked(search: Json) -> str:
    repeats = search.get("repeats", 1)
    return str(search["trials"]) if repeats == 1 else f"{search['trials'] * repeats}, {repeats} a point"


def preview(found: Json) -> Table:
    """What a sweep would be, a line for each thing to know."""
    nodes = found["nodes"]
    each = ", ".join(f"{node['CPU']:g} CPU and {node['GPU']:g} GPU" for node in nodes or ())
    per_trial = found["spec"]["resources"]
    return _facts(
        {
            "name": escape(found["spec"]["name"]),
            "trials": str(found["trials"]),
            "each trial": f"{per_trial['cpus']:g} CPU and {per_trial['gpus']:g} GPU",
            "at once": number(found["at_once"]),
            "nodes": "the cluster does not answer" if nodes is None else each or "none",
        }
    )


def first_points(found: Iterable[Json]) -> Table:
    """The first points that a sweep would try, a line each."""
    made = table("trial", "steps", "point")
    for one in found:
        made.add_row(str(one["number"]), str(one["steps"]), escape(point(one["point"])))
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
    """What a model says, a line an image; of evolutions a line a step. Masks are only in the JSON."""
    found: Sequence[Json] = answer["predictions"]
    steps = ["step"] if "evolution" in found[0] else []
    made = table("image", *steps, *_said(found[0]))
    for image, said in zip(images, found, strict=True):
        for step, one in enumerate(said["evolution"] if steps else [said], 1):
            made.add_row(escape(image), *(str(step) for _ in steps), *map(escape, _said(one).values()))
    return made


def _said(one: Json) -> dict[str, str]:
    if "probabilities" in one:
        return {"class": str(one["class"]), "probability": f"{one['probabilities'][one['class']]:.3f}"}
    if "segments" in one:
        return {
            "segments": ", ".join(f"{each['class']} {each.get('instance', '')}".strip() for each in one["segments"])
        }
    return {key: _short(value) for key, value in one.items() if key not in ("mask", "evolution")}


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def keys(found: Iterable[Json]) -> Table:
    """API keys, a line each."""
    made = table("id", "name", "scopes", "made", "revoked")
    for key in found:
        revoked = when(key["revoked_at"]) if key["revoked_at"] else ""
        made.add_row(key["id"], escape(key["name"]), ", ".join(key["scopes"]), when(key["created_at"]), revoked)
    return made


def deeds(found: Iterable[Json]) -> Table:
    """Who changed what, a line each."""
    made = table("when", "who", "did", "what")
    for deed in found:
        made.add_row(when(deed["at"]), escape(deed["actor"]), escape(deed["action"]), escape(deed["subject"]))
    return made
