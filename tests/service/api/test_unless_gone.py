"""Work is given up when the client goes away, and for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.api import unless_gone as module
from service.api.unless_gone import unless_gone


class Connection:
    """A client that says something, or nothing, and counts who listens."""

    def __init__(self, *messages: str) -> None:
        self.messages = list(messages)
        self.looked = 0

    async def receive(self) -> Message:
        """What it says next; then nothing for ever."""
        self.looked += 1
        if not self.messages:
            await asyncio.Event().wait()
        return {"type": self.messages.pop(0)}

    def request(self) -> Request:
        """A request of this client."""
        return Request({"type": "http"}, self.receive)


def _left() -> tuple[Callable[[], Coroutine[Any, Any, str]], list[str]]:
    """Work that never ends, and what became of it."""
    became: list[str] = []

    async def work() -> str:
        became.append("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            became.append("given up")
            raise
        return "done"

    return work, became


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)


def test_the_answer_comes_through_and_so_does_an_error() -> None:
    """Nobody has looked for the client by then."""

    async def run() -> None:
        client = Connection()

        async def fails() -> None:
            raise ValueError("its own")

        assert await unless_gone(client.request(), asyncio.sleep(0, "answer")) == "answer"
        with pytest.raises(ValueError, match="its own"):
            await unless_gone(client.request(), fails())
        assert client.looked == 0

    asyncio.run(run())


def test_a_client_that_goes_away_ends_the_work() -> None:
    """What else it says does not; the task that asked goes on afterwards."""

    async def run() -> None:
        client = Connection("http.request", "http.disconnect")
        work, became = _left()
        with pytest.raises(ClientDisconnect):
            await unless_gone(client.request(), work())
        assert (client.looked, became) == (2, ["began", "given up"])
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    asyncio.run(run())


def test_a_server_that_ends_is_no_client_that_went_away() -> None:
    """The cancellation goes on to who asked for it, and nobody listens any more."""

    async def run() -> None:
        client = Connection()
        work, became = _left()
        asking = asyncio.create_task(unless_gone(client.request(), work()))
        while not client.looked:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert became == ["began", "given up"]
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_a_server_that_ends_while_the_client_goes_away_ends() -> None:
    """Both at once: the server's cancellation is not swallowed."""

    async def run() -> None:
        client = Connection("http.disconnect")
        work, _ = _left()
        asking = asyncio.create_task(unless_gone(client.request(), work()))
        while not client.looked:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(run())
