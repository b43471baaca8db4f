"""``flask secure-ml keys``: create, list and revoke API keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup

from ..authentication.api_keys import issue_key
from ..authentication.key_store import FileKeyStore, KeyRecord
from ..errors import DependencyUnavailable
from ..secrets import Secret
from ..state import AppState
from .context import command_state, print_table

keys = AppGroup("keys", help="Create, list and revoke API keys.")

DAY = 86_400
HEADINGS = ("Id", "Client", "Scopes", "Plan", "Created", "Expires", "Status")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@keys.command("create")
@click.option("--client", required=True, help="Who the key is for.")
@click.option("--scope", "scopes", multiple=True, help="What the key allows; repeat it for several scopes.")
@click.option("--plan", default="default", show_default=True, help="The plan in SECURE_ML_PLANS.")
@click.option("--expires-days", type=click.IntRange(min=1), help="Days until the key expires; never without it.")
@_as_json
def create(client: str, scopes: Sequence[str], plan: str, expires_days: int | None, as_json: bool) -> None:
    """Make an API key and print it, this once."""
    state = command_state()
    if plan not in state.settings.plans:
        raise click.ClickException(f"SECURE_ML_PLANS has no plan {plan!r}; it has {', '.join(state.settings.plans)}")
    now = state.clock.now()
    expires = None if expires_days is None else now + expires_days * DAY
    try:
        text, record = issue_key(
            _store(state), _pepper(state), client=client, scopes=scopes, now=now, plan=plan, expires=expires
        )
    except (OSError, ValueError, DependencyUnavailable) as error:
        raise click.ClickException(_told(error)) from None
    click.echo(json.dumps({"key": text, **_public(record)}) if as_json else text)
    click.echo("Keep this key now: only its hash is stored, so it cannot be shown again.", err=True)


@keys.command("list")
@_as_json
def show(as_json: bool) -> None:
    """List every key, without its secret."""
    state = command_state()
    try:
        records = _store(state).list()
    except DependencyUnavailable as error:
        raise click.ClickException(error.reason) from None
    if as_json:
        click.echo(json.dumps([_public(record) for record in records]))
        return
    print_table([HEADINGS, *(_row(record, state.clock.now()) for record in records)])


@keys.command("revoke")
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Refuse a key from the next request on."""
    try:
        _store(command_state()).revoke(key_id)
    except KeyError:
        raise click.ClickException(f"there is no key with the id {key_id!r}; see: flask secure-ml keys list") from None
    except (OSError, DependencyUnavailable) as error:
        raise click.ClickException(_told(error)) from None
    click.echo(f"{key_id} is revoked")


def _store(state: AppState) -> FileKeyStore:
    if state.keys is None:
        raise click.ClickException("set SECURE_ML_API_KEYS_FILE to the file that shall hold the hashed API keys")
    return state.keys


def _pepper(state: AppState) -> Secret:
    if state.settings.api_key_pepper is None:
        raise click.ClickException('set SECURE_ML_API_KEY_PEPPER, such as "env:API_KEY_PEPPER"')
    return state.settings.api_key_pepper


def _told(error: Exception) -> str:
    return error.reason if isinstance(error, DependencyUnavailable) else str(error)


def _public(record: KeyRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "client": record.client,
        "scopes": sorted(record.scopes),
        "plan": record.plan,
        "created": record.created,
        "expires": record.expires,
        "status": record.status,
    }


def _row(record: KeyRecord, now: float) -> tuple[str, ...]:
    expired = record.expires is not None and record.expires <= now
    return (
        record.id,
        record.client,
        " ".join(sorted(record.scopes)) or "-",
        record.plan,
        _date(record.created),
        "never" if record.expires is None else _date(record.expires),
        f"{record.status}, expired" if expired else record.status,
    )


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
