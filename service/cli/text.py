"""How numbers, times and points read on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

STYLES = {
    "queued": "yellow",
    "running": "cyan",
    "starting": "cyan",
    "pausing": "yellow",
    "paused": "yellow",
    "stopping": "yellow",
    "cancelling": "yellow",
    "deleting": "dim",
    "completed": "green",
    "pruned": "dim",
    "stopped": "yellow",
    "failed": "red",
}
"""Colours of states."""
BARS = "▁▂▃▄▅▆▇█"


def styled(state: str) -> str:
    """A state in its colour, as Rich markup."""
    return f"[{STYLES.get(state, 'default')}]{state}[/]"


def number(value: Any) -> str:
    """A measured number to four digits; a dash where there is none. The API's `NaN` is a text already."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def when(text: str | None) -> str:
    """A time of the API in this machine's zone."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S") if text else "-"


def point(values: Mapping[str, Any]) -> str:
    """A point in one line: `learning_rate=0.003 batch_size=64`. The groups of the names go where none is ambiguous."""
    short = {name: name.rpartition(".")[2] for name in values}
    unique = len(set(short.values())) == len(short)
    return " ".join(f"{short[name] if unique else name}={_value(value)}" for name, value in values.items())


def measured(values: Iterable[Any]) -> list[float]:
    """The numbers among values of the API, whose `NaN` is a text and whose null says that nothing was measured."""
    return [value for value in values if isinstance(value, int | float)]


def sparkline(values: Sequence[Any], *, low: float, high: float) -> str:
    """Numbers as a line of bars, `low` the lowest bar and `high` the highest; a dot for what is no number."""
    steps = (len(BARS) - 1) / ((high - low) or 1.0)
    return "".join(BARS[round((value - low) * steps)] if measured([value]) else "·" for value in values)


def _value(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "-".join(map(_value, value))
    return number(value)
