"""A sweep's events as Server-Sent Events (WHATWG HTML, section 9.2), as they happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import final

import anyio
import anyio.to_thread
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.strict_json import StrictJSON
from service.api.views import EventView
from service.domain import Event, Sweep, SweepState
from service.errors import ServiceError, TooManyRequests
from service.ports import Store

POLL_SECONDS = 0.5
"""Between two looks at the store."""
HEARTBEAT_SECONDS = 15.0
"""So long at most passes without a word, or proxies would take the connection for dead."""
RETRY_MILLISECONDS = 2000
"""After which a reader that lost the stream comes back, with the `Last-Event-ID` that it has."""
ASKS_SECONDS = 4.0
"""Between two looks at whether the reader still may: a revoked key is good for five at most."""
LASTS_SECONDS = 300.0
"""Then a stream ends, and its reader comes back for another one: nobody who has gone keeps a place for good."""
LINGERS_SECONDS = 30.0
"""So much longer one lasts whose reader takes nothing of what it is sent."""
STREAMS, STREAMS_A_READER = 128, 32
"""Open at a time in this process, in all and for one reader: each asks the store twice a second."""
FULL_SECONDS = 10.0
"""After which a place may be free again, where all are taken."""


async def event_stream(
    store: Store,
    sweep_id: str,
    after: int,
    *,
    may_read: Callable[[], bool] = lambda: True,
    poll: float = POLL_SECONDS,
    heartbeat: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[str]:
    """The events numbered above `after`, each with its number as id and its kind as type.

    It ends when nothing more happens to the sweep by itself, when the reader may read no more, when it has lasted for
    `LASTS_SECONDS`, or when the store does not answer: the reader comes back.
    """

    def look() -> tuple[Sweep, list[Event]]:
        sweep = store.sweep(sweep_id)
        return sweep, store.events(sweep_id, after=after) if sweep.last_event > after else []

    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    silent, began = 0.0, anyio.current_time()
    asked = began
    while True:
        try:
            if anyio.current_time() - asked >= ASKS_SECONDS:
                asked = anyio.current_time()
                if not await anyio.to_thread.run_sync(may_read):
                    return
            sweep, found = await anyio.to_thread.run_sync(look)
        except ServiceError:
            return
        for event in found:
            after = event.number
            data = StrictJSON(EventView.model_validate(event).model_dump(mode="json")).body
            yield f"id: {event.number}\nevent: {event.kind}\ndata: {bytes(data).decode()}\n\n"
            silent = 0.0
        if anyio.current_time() - began >= LASTS_SECONDS:
            return
        if found:
            continue
        if sweep.state.final or sweep.state is SweepState.PAUSED:
            return
        if silent >= heartbeat:
            yield ": nothing new\n\n"
            silent = 0.0
        await anyio.sleep(poll)
        silent += poll


@final
class OpenStreams:
    """Which places for streams are taken. Belongs to one event loop."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextmanager
    def place(self, reader: str) -> Iterator[None]:
        """One of the reader's. Raises TooManyRequests where all of its own, or all there are, are taken."""
        if self._open[reader] >= STREAMS_A_READER:
            raise TooManyRequests(f"{STREAMS_A_READER} streams are open already for {reader}", seconds=FULL_SECONDS)
        if self._open.total() >= STREAMS:
            raise TooManyRequests(f"{STREAMS} streams are open already", seconds=FULL_SECONDS)
        self._open[reader] += 1
        try:
            yield
        finally:
            self._open[reader] -= 1
            self._open += Counter()  # who has none open is forgotten


@final
class EventStream(StreamingResponse):
    """A stream as an answer, which has a place while it is open.

    Args:
        stream: what is answered.
        places: raise TooManyRequests before anything is answered where none is free.
        reader: whose place it takes.
    """

    def __init__(self, stream: AsyncIterator[str], *, places: OpenStreams, reader: str) -> None:
        as_it_comes = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the latter is what nginx asks for
        super().__init__(stream, media_type="text/event-stream", headers=as_it_comes)
        self._places, self._reader = places, reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, as ASGI has it."""
        with self._places.place(self._reader), anyio.move_on_after(LASTS_SECONDS + LINGERS_SECONDS):
            await super().__call__(scope, receive, send)
