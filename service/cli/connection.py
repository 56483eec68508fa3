"""What the commands that ask a running service have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli.output import settings
from service.client import Client

Url = Annotated[
    str | None,
    typer.Option(
        help="Where the service is; default: SWEEPSERVE_URL, else SWEEPSERVE_HOST and _PORT.", show_default=False
    ),
]
SweepId = Annotated[str, typer.Argument(metavar="ID", help="The sweep's id.")]


def connect(url: str | None) -> Client:
    """The service at this URL, or where the settings say."""
    return Client(url or settings().api_url, key=settings().api_key)
