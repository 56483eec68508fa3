"""How the API's client reaches the API: over which connections, with which keys, and what it says where it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx

from service.settings import is_loopback

TIMEOUT = httpx.Timeout(60, connect=5)


class ClientError(Exception):
    """What was asked could not be had.

    `status` is that of HTTP, None where it did not come to an answer; `errors` has the faults of a request, each a
    `pointer` and a `detail`.
    """

    def __init__(self, detail: str, *, status: int | None = None, errors: Sequence[Mapping[str, str]] = ()) -> None:
        self.detail = detail
        self.status = status
        self.errors = tuple(errors)
        super().__init__(detail)


class NoAnswer(ClientError):  # noqa: N818 - it says what is the matter
    """Nobody answers at the URL, or not in time."""


def connections(url: str, *, key: str, transport: httpx.BaseTransport | None) -> httpx.Client:
    """Those to the API at a URL, with an API key.

    Raises:
        ClientError: the URL or the key is none, or the proxy of the environment cannot be used.
    """
    if not url.startswith(("http://", "https://")):
        raise ClientError(f"need a URL that starts with http:// or https://, got {url!r}")
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise ClientError(f"need the URL of a sweepserve API, got {url!r}: {error}") from error
    key = key.strip()  # a variable of a file easily has a space or the end of the line
    if not _goes_into_a_header(key):
        raise ClientError("need an API key as `sweepserve keys create` prints it")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    proxied = not is_loopback(host)  # a proxy would take these names for its own machine
    try:
        certificates = httpx.create_ssl_context() if url.startswith("https://") else True  # the environment's, always
        return httpx.Client(
            base_url=url, headers=headers, transport=transport, timeout=TIMEOUT, trust_env=proxied, verify=certificates
        )
    except (httpx.InvalidURL, ImportError, ValueError, OSError) as error:
        how = "by the proxy and with the certificates that the environment names"
        raise ClientError(f"cannot ask {url} {how}: {error}") from error


def idempotency(key: str | None) -> dict[str, str]:
    """The header with an idempotency key.

    Raises:
        ClientError: no header can have the key.
    """
    if key is None:
        return {}
    if not _goes_into_a_header(key):
        rule = "an idempotency key of printable ASCII characters without spaces around them"
        raise ClientError(f"need {rule}, got {key!r}")
    return {"Idempotency-Key": key}


def problem(answer: httpx.Response) -> ClientError:
    """What an answer says that is no success."""
    try:
        content = answer.json()
        detail, errors = str(content["detail"]), content.get("errors", ())
    except (ValueError, KeyError, TypeError, AttributeError):  # a proxy, or another service altogether
        detail, errors = f"{answer.url} answered {answer.status_code} {answer.reason_phrase}", ()
    return ClientError(detail, status=answer.status_code, errors=errors)


def _goes_into_a_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()
