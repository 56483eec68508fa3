"""`sweepserve demo`: a first sweep from end to end, by the same calls that any user makes."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

from rich.console import Console

from search_spaces import study
from service.cli import tables
from service.cli.watching import follow
from service.client import Client, ClientError
from service.settings import Settings
from service.stack import CannotStart, Stack, addresses, end_on_signals, sayer

_ASKED = 100  # held-out images
_SHOWN = 5  # of them, and those that it reads wrongly
_MLFLOW_LIMIT = 60.0  # seconds that MLflow may lag behind; it is a few


def demo(settings: Settings) -> int:
    """Starts the stack, runs the quickstart and asks its model; gives the exit status.

    On a terminal it then serves until Ctrl-C, elsewhere it ends everything.
    """
    end_on_signals()
    settings = replace(settings, url="")  # this stack is asked, wherever other commands go
    console = Console() if sys.stdout.isatty() else Console(width=10_000)  # whole lines for whoever reads a pipe
    serving = False
    try:
        _title(console, "The embedded stack")
        with Stack(settings, sayer(console)) as stack, Client(settings.api_url, key=settings.api_key) as client:
            _tour(settings, client, console)
            if sys.stdout.isatty():
                console.print("\nCtrl-C ends it; everything is kept, and `sweepserve up` serves it again")
                serving = True
                stack.serve()
    except KeyboardInterrupt:
        if not serving:
            return 130
    except (CannotStart, ClientError) as error:
        Console(stderr=True).print(f"sweepserve: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    console.print("ended")
    return 0


def _tour(settings: Settings, client: Client, console: Console) -> None:
    spec = study("quickstart")
    _title(console, f"A sweep: search_spaces/studies/quickstart.yaml, sent to {client.url}/v1/sweeps")
    sweep = client.submit(spec)
    watched = follow(sweep, client.watch(sweep["id"]), console)
    if watched.state != "completed":
        raise ClientError(f"the sweep is {watched.state}: {watched.reason}; its log:\n{client.logs(sweep['id'])}")

    _title(console, "Its leaderboard")
    board = client.leaderboard(sweep["id"])
    console.print(tables.leaderboard(board, sweep["spec"]), highlight=False)
    console.print(f"{watched.done - len(board)} of {watched.done} trials fell behind and were ended early")

    _title(console, f"Its best model, asked about {_ASKED} images that no trial has seen")
    images, classes = _held_out(spec["data"], settings)
    answer = client.predict(sweep["name"], images)
    shown = tables.table("image", "is a", "the model says", "with probability", "")
    right = 0
    for number, (true, said) in enumerate(zip(classes, answer["predictions"], strict=True)):
        right += said["class"] == true
        if number < _SHOWN or said["class"] != true:
            verdict = "right" if said["class"] == true else "wrong"
            shown.add_row(str(number), true, said["class"], f"{said['probabilities'][said['class']]:.3f}", verdict)
    console.print(shown, highlight=False)
    console.print(f"{right} of {_ASKED} are right; above are the first few and every wrong one", highlight=False)

    _title(console, "Pages to open")
    page = _tracked(client, sweep["id"])
    for name, address in {**addresses(settings), "the sweep": page}.items():
        console.print(f"  {name:<14} {address}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"  Ray's dashboard asks for the token in {settings.ray_token_path}", highlight=False, soft_wrap=True)


def _title(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/]", highlight=False, soft_wrap=True)


def _held_out(data: dict[str, Any], settings: Settings) -> tuple[list[bytes], list[str]]:
    """The first images of the test split, as PNG files, and their classes."""
    import cv2  # here, because these two take seconds to import and the first lines should not wait for them

    from trainables.data.datasets import DATASETS

    config = DATASETS[data["name"]].from_dict({name: value for name, value in data.items() if name != "name"})
    dataset = config.load(settings.data_root, reserve=settings.data_reserve)
    images = [cv2.imencode(".png", image[0])[1].tobytes() for image in dataset.test.images[:_ASKED]]
    return images, [dataset.task.caption(target) for target in dataset.test.targets[:_ASKED]]


def _tracked(client: Client, sweep_id: str) -> str:
    """The sweep's page in MLflow, once all of the sweep is there."""
    deadline = time.monotonic() + _MLFLOW_LIMIT
    while (sweep := client.sweep(sweep_id))["tracked"] < sweep["last_event"]:
        if time.monotonic() > deadline:
            return "not all in MLflow yet"
        time.sleep(0.2)
    return str(sweep["mlflow_url"])
