"""The memory that request bodies have together, while they come and until they are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from service.access import Scope, new_key
from service.api.body_limit import AT_ONCE, AT_ONCE_A_KEY, SMALL

MOST = 2**17
"""Bytes of a body."""
TAKEN = 400
"""What is sent is no image."""


@pytest.fixture(name="asker")
def _asker(make_service: Callable[..., Any]) -> Callable[..., Asker]:
    """Makes clients of one service."""
    service = make_service(require_keys=True, max_body_bytes=MOST)
    service.model()
    return lambda **limits: Asker(service, **limits)


class Asker:
    """A client with a key of its own."""

    def __init__(self, service: Any, **limits: int) -> None:
        key, text = new_key("ada", [Scope.PREDICT], at=service.clock.now(), **limits)
        service.access.add_key(key)
        self._app = service.app
        self._headers = {"Authorization": f"Bearer {text}", "Content-Type": "application/octet-stream"}

    async def send(self, content: bytes | AsyncIterator[bytes]) -> httpx.Response:
        """What is answered to this body."""
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.post("/v1/models/digits/predict", content=content, headers=self._headers)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """A body of `MOST` bytes that has come, but for its end; then it is answered."""
        come, end = anyio.Event(), anyio.Event()

        async def content() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield bytes(MOST // 4)
            come.set()
            await end.wait()

        async def send() -> None:
            assert (await self.send(content())).status_code == TAKEN

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            with anyio.fail_after(10):
                await come.wait()
            yield
            end.set()


def test_a_key_holds_so_much_memory_and_no_more(asker: Callable[..., Asker], portal: Any) -> None:
    """429 that says when to come again, at each door; what is small goes through, and so do others, and it, later."""
    ada, bob = asker(), asker()

    async def ask() -> None:
        async with AsyncExitStack() as others:
            for _ in range(AT_ONCE_A_KEY):
                await others.enter_async_context(ada.sending())
            refused = await ada.send(bytes(MOST))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.headers["connection"] == "close"
            assert (await ada.send(bytes(SMALL))).status_code == TAKEN
            assert (await bob.send(bytes(MOST))).status_code == TAKEN
        assert (await ada.send(bytes(MOST))).status_code == TAKEN

    portal.call(ask)


def test_all_keys_together_hold_so_much_memory_and_no_more(asker: Callable[..., Asker], portal: Any) -> None:
    """Whoever comes then is refused, however little it holds itself."""
    askers = [asker() for _ in range(AT_ONCE // AT_ONCE_A_KEY)]

    async def ask() -> None:
        async with AsyncExitStack() as others:
            for one in askers:
                for _ in range(AT_ONCE_A_KEY):
                    await others.enter_async_context(one.sending())
            assert (await asker().send(bytes(MOST))).status_code == 429
            assert (await asker().send(bytes(SMALL))).status_code == TAKEN
        assert (await asker().send(bytes(MOST))).status_code == TAKEN

    portal.call(ask)


def test_a_body_alone_is_held_whatever_its_size(asker: Callable[..., Asker], portal: Any) -> None:
    """A key's own limit may be larger than what all are given together."""
    large = 2 * AT_ONCE * MOST
    ada = asker(max_body_bytes=large)

    async def ask() -> None:
        assert (await ada.send(bytes(large))).status_code == TAKEN
        async with ada.sending():
            assert (await ada.send(bytes(large))).status_code == 429
        assert (await ada.send(bytes(large))).status_code == TAKEN

    portal.call(ask)
