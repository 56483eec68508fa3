"""Values as a database would give them back."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from service.adapters.strict_json import decode, encode
from service.domain import Event, Exploit, Measurement, Sweep, Trial, as_data

Noun = TypeVar("Noun", Sweep, Trial, Measurement, Event)
_DATA: dict[type, str] = {Sweep: "spec", Trial: "point", Measurement: "metrics", Event: "data"}


def through_json(value: Noun) -> Noun:
    """A copy by way of JSON, so that what a database would refuse or change is refused or changed here too."""
    field = _DATA[type(value)]
    copied = replace(value, **{field: decode(encode(getattr(value, field)))})
    if isinstance(copied, Trial):
        return replace(copied, exploits=tuple(Exploit(**decode(encode(as_data(one)))) for one in copied.exploits))
    return copied
