"""Ports of loopback for programs that tests start."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from pathlib import Path

_HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody has, and that the system gives to nobody who asks for any one, as every client does.

    A port that it hands out itself may be another program's by the time that it is used, or used again after a restart.
    """
    first, last = map(int, _HANDED_OUT.read_text(encoding="ascii").split())
    others = [*range(20_000, first), *range(last + 1, 65_536)]  # Ray's own workers take those below 20,000
    while True:
        port = secrets.choice(others)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
