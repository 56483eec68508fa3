"""Work that is given up when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")
PATIENCE = 0.05
"""Seconds before anybody looks: most answers are there by then, and looking costs as much as a small model."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; the request's body must have been read. Raises ClientDisconnect."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    looking: list[asyncio.Task[None]] = []
    timer = loop.call_later(PATIENCE, lambda: looking.append(loop.create_task(_look(request.receive, task))))
    try:
        return await work
    except asyncio.CancelledError:
        if looking and looking[0].done() and task.uncancel() == 0:  # nobody else wants it to end
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        for one in looking:
            one.cancel()


async def _look(receive: Receive, task: asyncio.Task[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()
