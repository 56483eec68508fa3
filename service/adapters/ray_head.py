"""The REST API of a Ray head, with its token."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, final

import httpx

from service.errors import Unavailable

TIMEOUT = httpx.Timeout(10, connect=2)


@final
class RayHead:
    """What listens at the dashboard's port.

    Args:
        url: `http://127.0.0.1:8265`.
        token_path: file with the cluster's authentication token, read anew for each request since a restarted head
            may have another; no such file: a cluster without authentication.
    """

    def __init__(self, url: str, *, token_path: Path) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False)
        self._token_path = token_path

    def close(self) -> None:
        """Drops the connections."""
        self._http.close()

    def ask(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> httpx.Response:
        """Whatever it answers. Raises Unavailable where it does not, or refuses the token."""
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = self._http.request(method, path, json=content, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"Ray at {self._http.base_url} does not answer ({type(error).__name__})") from error
        if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise Unavailable(f"Ray at {self._http.base_url} refuses the token in {self._token_path}")
        return answer

    def secret(self, purpose: str) -> str:
        """A secret that whoever has the cluster's token can work out, and nobody else; none without a token."""
        token = self._token()
        return hmac.digest(token.encode(), purpose.encode(), "sha256").hex() if token else ""

    def _token(self) -> str:
        try:
            return self._token_path.read_text().strip()
        except FileNotFoundError:
            return ""


def content(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer. Raises Unavailable where that is none, or tells of a failure."""
    if not answer.is_success:
        raise Unavailable(f"Ray could not say: {reason(answer)}")
    try:
        said = answer.json()
    except ValueError as error:
        raise Unavailable(f"need JSON from {answer.url}, which does not seem to be Ray") from error
    if not isinstance(said, dict):
        raise Unavailable(f"need a JSON object from {answer.url}, which does not seem to be Ray")
    return said


def reason(answer: httpx.Response) -> str:
    """Why it failed, in a line."""
    lines = [line for line in answer.text.splitlines() if line.strip(" .")]  # a traceback's last line says it
    return f"{answer.status_code} {lines[-1].strip() if lines else answer.reason_phrase}"
