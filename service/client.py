"""A small client of the HTTP API, for programs and for the `sweepserve` command. It imports nothing heavy.

    client = Client("http://127.0.0.1:8000")
    sweep = client.submit({"name": "digits", "family": "narrow_resnet", "data": {"name": "digits"}})
    for event in client.watch(sweep["id"]):
        print(event["kind"], event["data"])
    print(client.predict("digits", [Path("seven.png")])["predictions"])

Answers are the API's JSON as plain data; its page /docs says what is in each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final
from urllib.parse import quote

import httpx

from service.client_connection import ClientError as ClientError
from service.client_connection import NoAnswer as NoAnswer
from service.client_connection import connections, idempotency, problem
from service.server_sent_events import contents

FINAL = frozenset({"completed", "stopped", "failed", "paused"})
"""States of a sweep in which nothing more happens by itself."""
PATIENCE = 300.0
"""Seconds that `watch` waits for a service that it lost: a machine may take so long to start again."""
SILENCE = httpx.Timeout(45, connect=5)
"""A stream says something every 15 seconds; one that has said nothing for three times as long is dead."""
MAX_PAGE = 1000
"""Of a list; the service gives no more at a time."""
AWAY = frozenset({429, 502, 503, 504})
"""Statuses of a service, or of a proxy before it, that may answer later."""

Json = dict[str, Any]


class _NoStream(Exception):  # noqa: N818 - it is no error
    """The service's events do not come as a stream here."""


@final
class Client:
    """The API at a URL. Every method raises `ClientError`.

    Args:
        url: of the API, `http://127.0.0.1:8000`.
        key: an API key, where the service asks for one.
        transport: how requests travel; tests ask an app without a network.
        sleep: waits that many seconds between two looks at a sweep.
        now: the time in seconds, from whenever.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = connections(url, key=key, transport=transport)
        self.url = url
        self._sleep, self._now = sleep, now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drops the connections."""
        self._http.close()

    def submit(self, spec: Mapping[str, Any], *, key: str | None = None) -> Json:
        """The new sweep. The error of a spec that breaks rules lists all of them in `errors`.

        Args:
            spec: the spec, or `{"study": name}` for a packaged one.
            key: an idempotency key of your choice: asking again with it gives the same sweep, not another one.
        """
        return self._send("/v1/sweeps", spec, key=key)

    def validate(self, spec: Mapping[str, Any]) -> Json:
        """What would run, without running it; errors as those of `submit`."""
        return self._send("/v1/sweeps:validate", spec)

    def clone(self, sweep_id: str, changes: Mapping[str, Any] | None = None, *, key: str | None = None) -> Json:
        """A new sweep with another one's spec, changed by a JSON merge patch (RFC 7386)."""
        return self._send(_path("sweeps", sweep_id, "clone"), changes or {}, key=key)

    def sweeps(
        self, *, states: Sequence[str] = (), name: str | None = None, family: str | None = None, limit: int | None = 100
    ) -> list[Json]:
        """The newest sweeps, newest first; at most `limit`, None: all. No states: all."""
        query = _given(state=list(states), name=name, family=family)
        return self._pages("sweeps", "/v1/sweeps", query, limit=limit)

    def sweep(self, sweep_id: str) -> Json:
        """A sweep, how far it is, and the best that it found."""
        return self._json("GET", _path("sweeps", sweep_id))

    def trials(self, sweep_id: str, *, states: Sequence[str] = ()) -> list[Json]:
        """Its trials by number. No states: all."""
        return self._pages("trials", _path("sweeps", sweep_id, "trials"), _given(state=list(states)))

    def leaderboard(self, sweep_id: str, *, limit: int | None = 100) -> list[Json]:
        """Its points with a completed trial, best first; at most `limit`, None: all."""
        return self._pages("points", _path("sweeps", sweep_id, "leaderboard"), limit=limit)

    def pareto(self, sweep_id: str) -> list[Json]:
        """With several objectives: its points that no other one beats in everything, by the first objective."""
        return self._pages("points", _path("sweeps", sweep_id, "pareto"))

    def importance(self, sweep_id: str, *, objective: str | None = None) -> Json:
        """How much each searched parameter matters for an objective (default: the first), and from how many points."""
        return self._json("GET", _path("sweeps", sweep_id, "importance"), params=_given(objective=objective))

    def curves(
        self,
        sweep_id: str,
        *,
        metrics: Sequence[str] = (),
        trials: Sequence[str] = (),
        states: Sequence[str] = (),
        points: int | None = None,
    ) -> list[Json]:
        """Learning curves by trial number, as columns `steps` and `values` by metric.

        Args:
            sweep_id: the sweep's.
            metrics: which; none: the first objective.
            trials: ids; none: all.
            states: of the trials; none: all.
            points: at most so many of each curve, evenly spaced, the last one among them.
        """
        query = _given(metric=list(metrics), trial=list(trials), state=list(states), points=points)
        return self._pages("curves", _path("sweeps", sweep_id, "curves"), query)

    def measurements(self, sweep_id: str, *, trial: str | None = None) -> list[Json]:
        """What its trials reported after each step (by default an epoch)."""
        return self._pages("measurements", _path("sweeps", sweep_id, "measurements"), _given(trial=trial))

    def events(self, sweep_id: str, *, after: int = 0) -> list[Json]:
        """What happened since an event, in order: 1000 at most, so ask again after the last one."""
        return self._list("events", _events(sweep_id), params={"after": after})

    def watch(
        self, sweep_id: str, *, after: int = 0, every: float = 1.0, tell: Callable[[str], None] = lambda _: None
    ) -> Iterator[Json]:
        """What happens in a sweep, as it happens, until nothing more happens to it by itself.

        It comes as a stream, or is asked for each `every` seconds where something between here and the service lets no
        stream through. A service that was there and does not answer any more is given `PATIENCE` seconds to come back;
        `tell` is told of both. No event is lost and none comes twice.
        """
        self.sweep(sweep_id)  # one that is not there is not waited for
        lost: float | None = None  # when it did not answer for the first time
        streams = True
        while True:
            try:
                for event in self._streamed(sweep_id, after) if streams else self._listed(sweep_id, after):
                    if lost is not None:
                        tell(f"{self.url} answers again")
                        lost = None
                    if event is not None:
                        after = event["number"]
                        yield event
                sweep = self.sweep(sweep_id)
                if sweep["state"] in FINAL and sweep["last_event"] <= after:
                    return
            except _NoStream:
                streams = False
                continue
            except ClientError as error:
                if not (isinstance(error, NoAnswer) or error.status in AWAY):
                    raise
                if lost is None:
                    tell(f"{error.detail}; trying again for {PATIENCE / 60:g} minutes")
                    lost = self._now()
                elif self._now() - lost > PATIENCE:
                    raise
            self._sleep(every)

    def _streamed(self, sweep_id: str, after: int) -> Iterator[Json | None]:
        """The events after that one as they happen; None whenever there is a sign of life."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        heard = False
        try:
            with self._http.stream("GET", _events(sweep_id), headers=headers, timeout=SILENCE) as answer:
                if not answer.is_success:
                    answer.read()
                    raise problem(answer)
                if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                    raise _NoStream
                for content in contents(answer.iter_bytes()):
                    heard = True
                    yield json.loads(content) if content is not None else None
        except httpx.ReadTimeout as error:
            if not heard:  # somebody keeps the stream to himself until it has ended
                raise _NoStream from error
            raise NoAnswer(f"{self.url} did not answer in time") from error
        except httpx.HTTPError as error:
            raise NoAnswer(f"{self.url} does not answer: {error}") from error

    def _listed(self, sweep_id: str, after: int) -> Iterator[Json | None]:
        """The events after that one that have happened so far; None once the service has answered."""
        found = self.events(sweep_id, after=after)
        yield None
        while found:
            yield from found
            found = self.events(sweep_id, after=found[-1]["number"])

    def stop(self, sweep_id: str) -> Json:
        """Ends a sweep when its running trials have reported, and gives it as it is then, like all of these."""
        return self._json("POST", _path("sweeps", sweep_id, "stop"))

    def cancel(self, sweep_id: str) -> Json:
        """Ends a sweep and its running trials at once."""
        return self._json("POST", _path("sweeps", sweep_id, "cancel"))

    def pause(self, sweep_id: str) -> Json:
        """Halts a sweep when its running trials have reported."""
        return self._json("POST", _path("sweeps", sweep_id, "pause"))

    def resume(self, sweep_id: str) -> Json:
        """Goes on with a sweep that was paused or stopped."""
        return self._json("POST", _path("sweeps", sweep_id, "resume"))

    def extend(self, sweep_id: str, *, trials: int | None = None, time_budget: str | None = None) -> Json:
        """Gives a sweep more trials or more time: so many, and so much, in all. One that has ended goes on."""
        asked = {"trials": trials, "time_budget": time_budget}
        return self._send(_path("sweeps", sweep_id, "extend"), {k: v for k, v in asked.items() if v is not None})

    def retry(self, sweep_id: str) -> Json:
        """Runs a sweep's failed trials again."""
        return self._json("POST", _path("sweeps", sweep_id, "retry"))

    def delete(self, sweep_id: str) -> Json:
        """Removes a sweep with its checkpoints, its models and its runs in MLflow."""
        return self._json("DELETE", _path("sweeps", sweep_id))

    def logs(self, sweep_id: str) -> str:
        """What its drivers printed so far, the oldest first."""
        return self._ask("GET", _path("sweeps", sweep_id, "logs")).text

    def families(self) -> list[Json]:
        """The model families that a sweep may search."""
        return self._list("families", "/v1/families")

    def family(self, name: str) -> Json:
        """What can be set in a trial of a family, and what a sweep of it searches by default."""
        return self._json("GET", _path("families", name))

    def datasets(self) -> list[Json]:
        """The datasets that a sweep may learn, with what can be set of each."""
        return self._list("datasets", "/v1/datasets")

    def models(self, *, family: str | None = None) -> list[Json]:
        """The champion of each model, by name."""
        return self._pages("models", "/v1/models", _given(family=family))

    def model(self, name: str) -> Json:
        """A model: its champion, what runs it, and all its versions, newest first."""
        found = page = self._json("GET", _path("models", name), params={"limit": MAX_PAGE})
        while page["next_page_token"] is not None:
            query = {"limit": MAX_PAGE, "page_token": page["next_page_token"]}
            page = self._json("GET", _path("models", name), params=query)
            found["versions"] += page["versions"]
        return found

    def promotions(self, name: str) -> list[Json]:
        """Every change of a model's champion, newest first."""
        return self._pages("promotions", _path("models", name, "promotions"))

    def predict(
        self, name: str, images: Sequence[Path | bytes], *, steps: int | None = None, evolution: bool = False
    ) -> Json:
        """What a model says about images: files, or their content.

        Args:
            name: the model's.
            images: one or many.
            steps: of a recurrent model; none: as trained.
            evolution: of a recurrent model: each prediction also has the answers after step 1, 2, ...

        Raises:
            OSError: a file cannot be read.
        """
        files = [
            ("images", (image.name, image.read_bytes()) if isinstance(image, Path) else (f"image-{i}", image))
            for i, image in enumerate(images)
        ]
        query = {"evolution": evolution, **({} if steps is None else {"steps": steps})}
        return self._json("POST", _path("models", name, "predict"), files=files, params=query)

    def deeds(self, *, limit: int | None = 100) -> list[Json]:
        """What was changed through the API and by whom, newest first. Needs the scope `admin`."""
        return self._pages("deeds", "/v1/audit", limit=limit)

    def _send(self, path: str, document: Mapping[str, Any], *, key: str | None = None) -> Json:
        headers = idempotency(key)
        try:
            return self._json("POST", path, json=dict(document), headers=headers)
        except (TypeError, ValueError) as error:  # a NaN, a date, ...
            raise ClientError(f"the spec cannot be sent as JSON: {error}") from error

    def _pages(
        self, key: str, path: str, query: Mapping[str, Any] | None = None, *, limit: int | None = None
    ) -> list[Json]:
        """A list, read page by page up to the limit; None: all of it."""
        found: list[Json] = []
        asked = dict(query or {})
        while limit is None or len(found) < limit:
            asked["limit"] = MAX_PAGE if limit is None else min(limit - len(found), MAX_PAGE)
            page = self._json("GET", path, params=asked)
            found += page[key]
            if page["next_page_token"] is None:
                break
            asked["page_token"] = page["next_page_token"]
        return found

    def _list(self, key: str, path: str, **arguments: Any) -> list[Json]:
        found: list[Json] = self._json("GET", path, **arguments)[key]
        return found

    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        answer = self._ask(method, path, **arguments)
        try:
            content: Json = answer.json()
        except ValueError as error:
            raise ClientError(f"{answer.url} does not seem to be a sweepserve API: its answer is not JSON") from error
        return content

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TimeoutException as error:
            raise NoAnswer(f"{self.url} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoAnswer(f"{self.url} does not answer: {error}") from error
        if answer.is_success:
            return answer
        raise problem(answer)


def _given(**query: Any) -> dict[str, Any]:
    """What is not left out."""
    return {key: value for key, value in query.items() if value}


def _events(sweep_id: str) -> str:
    return _path("sweeps", sweep_id, "events")


def _path(*parts: str) -> str:
    """The path of a resource; a slash within a part stays within it."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)
