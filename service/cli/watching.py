"""A sweep as it goes, told from its events: live on a terminal, in lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.cli import tables
from service.cli.text import number, point, styled

Json = Mapping[str, Any]
SHOWN = 12
"""Trials in the live table, the newest ones."""


@final
class Watched:
    """What the events so far make of a sweep.

    Args:
        sweep: as the API shows it; its spec says what there is to come.
    """

    def __init__(self, sweep: Json) -> None:
        self.id, self.name, self.state = sweep["id"], sweep["name"], "queued"
        self.reason = ""
        self.asked = _asked(sweep["spec"]["search"])
        self.metric = str(sweep["spec"]["objectives"][0]["metric"])
        self.more_is_better = sweep["spec"]["objectives"][0]["mode"] == "max"
        self.trials: dict[str, dict[str, Any]] = {}
        self.model: Json | None = None
        self.progress: Json | None = None
        self.waiting = ""

    def see(self, event: Json) -> None:
        """Takes the next event in."""
        data = event["data"]
        match event["kind"]:
            case "sweep":
                self.state = data["state"]
                if "spec" in data:  # it was extended, and nothing else: its reason may be what it waits for
                    self.asked = _asked(data["spec"]["search"])
                else:  # a move ends every wait
                    self.reason, self.waiting = data["reason"], ""
            case "trial":
                self.trials[data["id"]] = {**self.trials.get(data["id"], {}), **data}
                self.progress = None  # trials only start once all is prepared
            case "measurement":
                trial = self.trials[data["trial_id"]]
                trial["step"], trial["latest"] = data["step"], data["metrics"].get(self.metric)
            case "exploit":
                trial = self.trials[data["trial_id"]]
                trial["point"], trial["exploits"] = data["point"], [*trial.get("exploits", ()), data]
            case "model":
                self.model = data
            case "progress":
                self.progress = data
            case "wait":
                self.waiting = data["reason"]

    @property
    def done(self) -> int:
        """How many trials have ended."""
        return sum(trial["state"] not in ("running", "paused") for trial in self.trials.values())

    @property
    def best(self) -> Json | None:
        """The completed trial with the best value."""
        completed = [trial for trial in self.trials.values() if trial["state"] == "completed"]
        sign = 1 if self.more_is_better else -1
        return max(completed, key=lambda trial: (sign * trial["values"][0], -trial["number"]), default=None)


def _asked(search: Json) -> int:
    return int(search["trials"]) * int(search.get("repeats", 1))


def line(watched: Watched, event: Json) -> str | None:
    """An event in one line; None: it is not worth one. `watched` has seen it."""
    data = event["data"]
    match event["kind"]:
        case "sweep":
            return f"sweep {watched.id} is {data['state']}" + (f": {data['reason']}" if data["reason"] else "")
        case "trial" if data["state"] == "running":
            return f"trial {data['number']} starts: {point(data['point'])}"
        case "trial":
            reason = f": {data['reason']}" if data["reason"] else ""
            value = f", {watched.metric} {number(data['values'][0])}" if data["values"] else ""
            return f"trial {data['number']} {data['state']} ({watched.done} of {watched.asked}){value}{reason}"
        case "measurement":
            trial = watched.trials[data["trial_id"]]
            return f"trial {trial['number']} step {data['step']}: {watched.metric} {number(trial['latest'])}"
        case "exploit":
            trial, source = watched.trials[data["trial_id"]], watched.trials[data["source"]]
            where = f"trial {trial['number']} step {data['step']}"
            return f"{where}: goes on from trial {source['number']} with {point(data['point'])}"
        case "model":
            return f"model {data['name']} version {data['version']}: {watched.metric} {number(data['value'])}"
        case "wait":
            return f"sweep {watched.id} waits: {data['reason']}" if data["reason"] else f"sweep {watched.id} goes on"
        case "progress" if data["done"] in (0, data["total"]):
            return f"{data['what']}: {data['done']} of {data['total']}"
    return None


def follow(sweep: Json, events: Iterable[Json], console: Console) -> Watched:
    """Shows a sweep until its events end, and gives what became of it."""
    watched = Watched(sweep)
    if not console.is_terminal:
        for event in events:
            watched.see(event)
            if text := line(watched, event):
                console.print(text, markup=False, highlight=False, soft_wrap=True)
        return watched
    bars = _Bars(watched)
    with Live(console=console, refresh_per_second=4, get_renderable=bars.render):
        for event in events:
            watched.see(event)
    return watched


@final
class _Bars:
    """The live picture: two bars, the best so far, the newest trials."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._trials = self._progress.add_task("trials", total=watched.asked)
        self._preparing = self._progress.add_task("", total=1, visible=False)

    def render(self) -> RenderableType:
        watched, preparing = self._watched, self._watched.progress
        self._progress.update(self._trials, completed=watched.done)
        if preparing:
            what, done, total = preparing["what"], preparing["done"], preparing["total"]
            self._progress.update(
                self._preparing, description=escape(what), completed=done, total=total, visible=done < total
            )
        else:
            self._progress.update(self._preparing, visible=False)
        said = watched.reason or (watched.waiting if watched.state in ("starting", "running") else "")
        reason = f" ({escape(said)})" if said else ""
        best = watched.best
        found = f"best {number(best['values'][0])} by trial {best['number']}" if best else "no trial has completed yet"
        return Group(
            f"[bold]{escape(watched.name)}[/] {watched.id} {styled(watched.state)}{reason}, {found}",
            self._progress,
            self._newest(),
        )

    def _newest(self) -> RenderableType:
        made = tables.table("trial", "state", "step", self._watched.metric, "point")
        best = self._watched.best
        for trial in sorted(self._watched.trials.values(), key=lambda trial: -trial["number"])[:SHOWN]:
            value = trial["values"][0] if trial["values"] else trial.get("latest")
            made.add_row(
                str(trial["number"]),
                styled(trial["state"]),
                str(trial["step"]),
                number(value),
                escape(point(trial["point"])),
                style="bold" if best and trial["id"] == best["id"] else None,
            )
        return made
