"""What may go wrong: every error that a client can cause or should hear of.

All have one root:

    ServiceError
    |- NotFound          no such sweep, trial or model
    |- Conflict          the thing is there, but not in a state that allows this
    |  `- IllegalMove
    |- InvalidSpec       a spec broke rules; lists every fault
    |- KeyReused         an idempotency key came back with another request
    |- BadImage          bytes that are not an image we can decode
    |- BadRequest        a question that a model cannot be asked
    |- TooLarge          a body, an image or a batch over its limit
    |- Unauthorized      no API key where one is needed, or one that is not valid
    |- Forbidden         the key is valid, and not for this
    |- TooManyRequests   more than the limit allows; says when to try again
    `- Unavailable       something that we depend on does not answer; trying again later may help
"""

from __future__ import annotations

from collections.abc import Sequence

from trainables.config import Fault


class ServiceError(Exception):
    """Root of every error that a client can cause or should hear of."""


class NotFound(ServiceError):  # noqa: N818 - named as the domain speaks
    """No such sweep, trial or model."""


class Conflict(ServiceError):  # noqa: N818
    """The thing is there, but not in a state that allows this."""


class IllegalMove(Conflict):
    """A state cannot follow another."""


class InvalidSpec(ServiceError):  # noqa: N818
    """A spec broke rules; `faults` lists every one, each with its JSON pointer."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))


class KeyReused(ServiceError):  # noqa: N818
    """An idempotency key came back with another request than the one it was first used for."""


class BadImage(ServiceError):  # noqa: N818
    """Bytes that are not an image we can decode."""


class BadRequest(ServiceError):  # noqa: N818
    """A question that a model cannot be asked: tensors of another shape, say."""


class TooLarge(ServiceError):  # noqa: N818
    """A body, an image or a batch over its limit."""


class Unauthorized(ServiceError):  # noqa: N818 - named as HTTP speaks
    """No API key where one is needed, or one that is not valid."""


class Forbidden(ServiceError):  # noqa: N818
    """The API key is valid, and not for this."""


class TooManyRequests(ServiceError):  # noqa: N818
    """More requests than the limit allows; trying again after `seconds` will help."""

    def __init__(self, message: str, *, seconds: float = 1.0) -> None:
        super().__init__(message)
        self.seconds = seconds


class Unavailable(ServiceError):  # noqa: N818
    """Something that the service depends on does not answer; trying again later may help."""
