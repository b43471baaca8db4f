"""``flask secure-ml revoke``: refuse tokens and callers before their time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from ..authentication.revocation import KEPT, Revocation, Revocations
from ..errors import DependencyUnavailable
from .context import command_state, print_table

revoke: AppGroup = AppGroup("revoke", help="Refuse tokens and callers before their time.")

DAY = 86_400
HEADINGS = ("Id", "Refused", "Since", "Until")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@revoke.command("token")
@click.argument("token_id", metavar="JTI")
@click.option("--issuer", required=True, help="Who issued it: its claim iss, to the last character.")
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=KEPT // DAY,
    show_default=True,
    help="Days to remember this, at least as long as the token lives.",
)
@_as_json
def token(token_id: str, issuer: str, days: int, as_json: bool) -> None:
    """Refuse one access token, named by its claim jti."""
    _check_issuer(issuer)
    _do(lambda revocations: revocations.revoke_token(issuer, token_id, seconds=days * DAY), as_json)


@revoke.command("principal")
@click.argument("principal_id", metavar="ID")
@_as_json
def principal(principal_id: str, as_json: bool) -> None:
    """Refuse a caller, whatever it presents, until that is undone.

    The ID is what the request log has as "principal", such as https://issuer.example#subject.
    """
    _do(lambda revocations: revocations.revoke_principal(principal_id), as_json)


@revoke.command("before")
@click.argument("instant")
@click.option("--issuer", help="Only tokens of this issuer.")
@click.option("--principal", "principal_id", metavar="ID", help="Only credentials of this caller.")
@_as_json
def before(instant: str, issuer: str | None, principal_id: str | None, as_json: bool) -> None:
    """Refuse every credential that was issued at INSTANT or earlier.

    INSTANT is "now", or a time such as 2026-05-01T12:00:00Z; without a zone it is UTC. Without an option this is about
    everyone, API keys and certificates included.
    """
    if issuer is not None:
        _check_issuer(issuer)
    seconds = command_state().clock.now() if instant == "now" else _seconds(instant)
    _do(lambda revocations: revocations.revoke_before(seconds, issuer=issuer, principal_id=principal_id), as_json)


@revoke.command("list")
@_as_json
def list_revocations(as_json: bool) -> None:
    """List every revocation."""
    with _in_one_sentence():
        records = _shared().list()
    if as_json:
        click.echo(json.dumps([_members(record) for record in records]))
    else:
        print_table([HEADINGS, *map(_row, records)])


@revoke.command("undo")
@click.argument("key", metavar="ID")
def undo(key: str) -> None:
    """Forget a revocation, named by its ID in the list."""
    with _in_one_sentence():
        done = _shared().undo(key)
    if not done:
        raise click.ClickException(f"there is no revocation {key!r}; see: flask secure-ml revoke list")
    click.echo(f"{key} is undone; every worker knows within a second.")


def _do(action: Callable[[Revocations], Revocation], as_json: bool) -> None:
    with _in_one_sentence():
        record = action(_shared())
    if as_json:
        click.echo(json.dumps(_members(record)))
        return
    click.echo(f"Refused: {record}; every worker knows within a second.")
    click.echo(f"To undo it: flask secure-ml revoke undo {record.key}", err=True)


def _shared() -> Revocations:
    state = command_state()
    if not state.store.shared:
        raise click.ClickException(
            "SECURE_ML_STORE_URI is memory:, which no other process sees; set it to sqlite:/path for one machine, or "
            "to a redis: or valkey: address for many"
        )
    return state.revocations


def _check_issuer(issuer: str) -> None:
    known = [each.issuer for each in command_state().settings.token_issuers]
    if issuer not in known:
        told = f"it has {', '.join(known)}" if known else "it is empty"
        raise click.ClickException(f"SECURE_ML_TOKEN_ISSUERS has no issuer {issuer!r}; {told}")


def _seconds(instant: str) -> float:
    try:
        found = datetime.fromisoformat(instant)
    except ValueError:
        raise click.ClickException(f'{instant!r} is not a time such as 2026-05-01T12:00:00Z, nor "now"') from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Turn what is raised into a message without a trace."""
    try:
        yield
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    except DependencyUnavailable as error:
        told = f"{error.reason}; whether something was revoked shows, when it answers: flask secure-ml revoke list"
        raise click.ClickException(told) from None


def _members(record: Revocation) -> dict[str, object]:
    return {"id": record.key, **asdict(record)}


def _row(record: Revocation) -> tuple[str, ...]:
    return record.key, str(record), _time(record.created), _time(record.expires)


def _time(seconds: float | None) -> str:
    return "undone" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
