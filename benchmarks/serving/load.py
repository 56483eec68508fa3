"""Clients that cost little: connections kept open, requests made beforehand, answers read by their length only."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from time import perf_counter  # uvloop's own clock counts milliseconds
from typing import Any

import uvloop

WARM_UP = 1.0
"""Seconds whose answers do not count."""


@dataclass
class Outcome:
    """What clients saw."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    asked: int = 0
    """Also while it warmed up."""
    failures: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """Of all answers where they were asked for, else of one."""

    def summary(self) -> dict[str, Any]:
        """Throughput and latency; no latencies (NaN has no JSON) of less than two answers."""
        several = len(self.latencies) > 1
        cuts = statistics.quantiles(self.latencies, n=100) if several else []
        return {
            "requests_a_second": round(len(self.latencies) / self.seconds, 1),
            "p50_ms": round(1000 * cuts[49], 2) if several else None,
            "p99_ms": round(1000 * cuts[98], 2) if several else None,
            "n": len(self.latencies),
            "failed": len(self.failures),
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection of HTTP/1.1 that reads one answer at a time."""

    def connection_made(self, transport: Any) -> None:
        """Ready."""
        self.transport, self._read, self._answer = transport, b"", None

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Some of the answer."""
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        head = self._read[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._read) >= end + 4 + length:
            body, self._read = self._read[end + 4 : end + 4 + length], b""
            if not self._answer.done():
                self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits is told."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed"))


async def connect(port: int) -> Connection:
    """A connection to a server of this machine."""
    return (await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port))[1]


async def load(
    port: int, request: bytes, *, clients: int, seconds: float, rate: float | None = None, keep: bool = False
) -> Outcome:
    """Asks for so many seconds after `WARM_UP`.

    Args:
        port: of the server.
        request: the whole of it, as it is sent.
        clients: connections.
        seconds: that count.
        rate: requests a second in all, whether answers came or not, timed from when they were due; none: a client that
            has its answer asks again at once.
        keep: all bodies.
    """
    outcome = Outcome(seconds)
    began = perf_counter()
    counts_from, ends = began + WARM_UP, began + WARM_UP + seconds

    async def client(number: int) -> None:
        connection = await connect(port)
        due = began + number / rate if rate else 0.0
        while (due if rate else perf_counter()) < ends:
            if perf_counter() > ends + seconds:
                outcome.failures.append("not even asked: the server is so far behind")
                break
            if rate:
                await asyncio.sleep(max(0.0, due - perf_counter()))
            asked = due if rate else perf_counter()
            outcome.asked += 1
            try:
                status, body = await connection.ask(request)
            except OSError as error:
                outcome.failures.append(repr(error))
                connection = await connect(port)
                continue
            if status != 200:
                outcome.failures.append(f"{status} {body[:200]!r}")
            else:
                if keep or not outcome.bodies:
                    outcome.bodies.append(body)
                now = perf_counter()
                if asked >= counts_from if rate else counts_from <= now < ends:
                    outcome.latencies.append(now - asked)
            due += clients / rate if rate else 0.0
        connection.transport.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return outcome


def measure(port: int, request: bytes, **options: Any) -> Outcome:
    """The same, from without an event loop."""
    return uvloop.run(load(port, request, **options))
