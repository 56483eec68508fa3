"""`sweepserve keys`: API keys, in the service's database itself; whoever can open that may make keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.access import Deed, Key, Scope, new_key
from service.cli import tables
from service.cli.output import AsJson, Refused, print_json, say, settings, show_answer
from service.errors import ServiceError

if TYPE_CHECKING:
    from service.access import Access

app = typer.Typer(help="Makes, lists and revokes API keys, in the service's database.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, or what it is for.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it is good for, once for each; default: read and predict.", show_default=False),
    ] = None,
    rate: Annotated[
        int | None, typer.Option(help="Requests a minute; default: SWEEPSERVE_RATE_LIMIT.", show_default=False)
    ] = None,
    max_body_bytes: Annotated[
        int | None, typer.Option(help="Of a request; default: SWEEPSERVE_MAX_BODY_BYTES.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Makes a key and prints it, this once."""
    from service.adapters.clock import SystemClock

    now = SystemClock().now()
    try:
        key, text = new_key(
            name, scope or (Scope.READ, Scope.PREDICT), at=now, rate=rate, max_body_bytes=max_body_bytes
        )
    except ValueError as error:
        raise Refused(str(error)) from error
    with _access() as access:
        access.add_key(key)
        access.record(Deed(at=now, actor="console", action="create_key", subject=_subject(key)))
    if as_json:
        print_json({**_described(key), "key": text})
    else:
        say(text)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Lists all keys, without what makes them work."""
    with _access() as access:
        found = [_described(key) for key in access.list_keys()]
    show_answer(found, tables.keys(found), as_json=as_json)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` has it.")]) -> None:
    """Ends a key; a running API takes it for some seconds more."""
    from service.adapters.clock import SystemClock

    now = SystemClock().now()
    with _access() as access:
        key = access.revoke_key(key_id, at=now)
        access.record(Deed(at=now, actor="console", action="revoke_key", subject=_subject(key)))
    say(f"revoked {key.id} ({key.name})")


@contextmanager
def _access() -> Iterator[Access]:
    from service.adapters.sql_access import SqlAccess
    from service.adapters.sql_store import SqlStore

    try:
        with closing(SqlStore(settings().database_url)) as store:
            store.migrate()
            yield SqlAccess(store.engine)
    except (ServiceError, ValueError) as error:
        raise Refused(str(error)) from error


def _described(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "rate": key.rate,
        "max_body_bytes": key.max_body_bytes,
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


def _subject(key: Key) -> str:
    return f"key {key.id} ({key.name}): {', '.join(sorted(key.scopes))}"
