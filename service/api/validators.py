"""What FastAPI checks requests and answers with, made before there are any."""

from __future__ import annotations

from collections import deque

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts


def make_validators(app: FastAPI) -> None:
    """Makes those of every route now; the app has all of its routes.

    Left alone, FastAPI makes them as requests first need them, in whichever threads those are answered, with Python's
    warning filters, which all threads share, changed meanwhile.
    """
    deque(iter_route_contexts(app.routes), maxlen=0)
