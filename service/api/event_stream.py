"""A sweep's events as Server-Sent Events (WHATWG HTML, section 9.2), as they happen."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.to_thread

from service.api.strict_json import StrictJSON
from service.api.views import EventView
from service.domain import Event, Sweep, SweepState
from service.errors import ServiceError
from service.ports import Store

POLL_SECONDS = 0.5
"""Between two looks at the store."""
HEARTBEAT_SECONDS = 15.0
"""So long at most passes without a word, or proxies would take the connection for dead."""
RETRY_MILLISECONDS = 2000
"""After which a reader that lost the stream comes back, with the `Last-Event-ID` that it has."""


async def event_stream(
    store: Store, sweep_id: str, after: int, *, poll: float = POLL_SECONDS, heartbeat: float = HEARTBEAT_SECONDS
) -> AsyncIterator[str]:
    """The events numbered above `after`, each with its number as id and its kind as type.

    It ends when nothing more happens to the sweep by itself, or when the store does not answer: the reader comes back.
    """

    def look() -> tuple[Sweep, list[Event]]:
        return store.sweep(sweep_id), store.events(sweep_id, after=after)

    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    silent = 0.0
    while True:
        try:
            sweep, found = await anyio.to_thread.run_sync(look)
        except ServiceError:
            return
        for event in found:
            after = event.number
            data = StrictJSON(EventView.model_validate(event).model_dump(mode="json")).body
            yield f"id: {event.number}\nevent: {event.kind}\ndata: {bytes(data).decode()}\n\n"
            silent = 0.0
        if found:
            continue
        if sweep.state.final or sweep.state is SweepState.PAUSED:
            return
        if silent >= heartbeat:
            yield ": nothing new\n\n"
            silent = 0.0
        await anyio.sleep(poll)
        silent += poll
