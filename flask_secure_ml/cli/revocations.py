"""``flask secure-ml revocations``: reject tokens and callers before their credentials expire."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

import click
from flask.cli import AppGroup

from ..authentication.revocation import KEPT, Revocation, Revocations
from .context import audit_event, command_state, json_option, missing, mistakes_as_messages, print_table

revocations: AppGroup = AppGroup("revocations", help="Reject tokens and callers before their credentials expire.")

DAY = 86_400
HEADINGS = ("Id", "Revoked", "Created", "Expires")
LIST = "flask secure-ml revocations list"
OUTAGE = f"; the change may not have been saved. When the store is available again, check: {LIST}"


@revocations.command("token")
@click.argument("token_id", metavar="JTI")
@click.option("--issuer", required=True, help="The exact claim iss of the token.")
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=KEPT // DAY,
    show_default=True,
    help="Days until the revocation expires; at least the remaining lifetime of the token.",
)
@json_option
def token(token_id: str, issuer: str, days: int, as_json: bool) -> None:
    """Revoke one access token by its claim jti."""
    _check_issuer(issuer)
    _revoke(lambda shared: shared.revoke_token(issuer, token_id, seconds=days * DAY), as_json)


@revocations.command("principal")
@click.argument("principal_id", metavar="ID")
@json_option
def principal(principal_id: str, as_json: bool) -> None:
    """Revoke all credentials of a caller, until the revocation is undone.

    The ID is the member "principal" of the request log, such as https://issuer.example#subject.
    """
    _revoke(lambda shared: shared.revoke_principal(principal_id), as_json)


@revocations.command("before")
@click.argument("instant")
@click.option("--issuer", help="Only tokens of this issuer.")
@click.option("--principal", "principal_id", metavar="ID", help="Only credentials of this caller.")
@json_option
def before(instant: str, issuer: str | None, principal_id: str | None, as_json: bool) -> None:
    """Revoke all credentials that were issued at INSTANT or earlier.

    INSTANT is "now", or a time such as 2026-05-01T12:00:00Z; the default time zone is UTC. Without an option, this
    applies to all callers, including API keys and certificates.
    """
    if issuer is not None:
        _check_issuer(issuer)
    seconds = command_state().clock.now() if instant == "now" else _seconds(instant)
    _revoke(lambda shared: shared.revoke_before(seconds, issuer=issuer, principal_id=principal_id), as_json)


@revocations.command("list")
@json_option
def list_revocations(as_json: bool) -> None:
    """List all revocations."""
    with mistakes_as_messages():
        records = _shared().list()
    if as_json:
        click.echo(json.dumps([_members(record) for record in records]))
    elif records:
        print_table([HEADINGS, *map(_row, records)])
    else:
        click.echo("No revocations.")


@revocations.command("undo")
@click.argument("key", metavar="ID")
def undo(key: str) -> None:
    """Remove a revocation by its ID in the list."""
    with mistakes_as_messages(OUTAGE):
        done = _shared().undo(key)
    if not done:
        raise click.ClickException(f"unknown revocation {key!r}; see: {LIST}")
    audit_event("revocation_undone", revocation=key)
    click.echo(f"Removed: {key}; all workers apply this within a second.")


def _revoke(action: Callable[[Revocations], Revocation], as_json: bool) -> None:
    with mistakes_as_messages(OUTAGE):
        record = action(_shared())
    audit_event("revoked", revocation=record.key, what=str(record))
    if as_json:
        click.echo(json.dumps(_members(record)))
        return
    click.echo(f"Revoked: {record}; all workers apply this within a second.")
    click.echo(f"To undo it: flask secure-ml revocations undo {record.key}", err=True)


def _shared() -> Revocations:
    state = command_state()
    if not state.store.shared:
        raise missing(
            "SECURE_ML_STORE_URI",
            "SECURE_ML_STORE_URI is memory:, which other processes cannot read; set it to sqlite:/path for one "
            "machine, or to a redis: or valkey: URL for several",
        )
    return state.revocations


def _check_issuer(issuer: str) -> None:
    known = [each.issuer for each in command_state().settings.token_issuers]
    if issuer not in known:
        names = f"has {', '.join(known)}" if known else "is empty"
        raise click.ClickException(f"unknown issuer {issuer!r}; SECURE_ML_TOKEN_ISSUERS {names}")


def _seconds(instant: str) -> float:
    try:
        found = datetime.fromisoformat(instant)
    except ValueError:
        raise click.ClickException(f'{instant!r} is neither a time such as 2026-05-01T12:00:00Z nor "now"') from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _members(record: Revocation) -> dict[str, object]:
    return {"id": record.key, **asdict(record)}


def _row(record: Revocation) -> tuple[str, ...]:
    return record.key, str(record), _time(record.created), "never" if record.expires is None else _time(record.expires)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
