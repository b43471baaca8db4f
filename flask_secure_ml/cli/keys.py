"""``flask secure-ml keys``: manages API keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask.cli import AppGroup

from ..authentication.api_keys.key import ACTIVE, PREFIX, KeyRecord, KeyStore, to_members
from ..authentication.api_keys.key import key_id as id_of
from ..authentication.api_keys.lifecycle import disable_key, enable_key, issue_key, revoke_key, rotate_key
from ..config.settings import IN_STORE
from .context import audit_event, command_state, json_option, missing, mistakes_as_messages, one_line, print_table

if TYPE_CHECKING:
    from ..policy.matching import PolicyTable
    from ..secrets import SecretRing
    from ..state import AppState

keys: AppGroup = AppGroup("keys", help="Create, list, rotate, disable and revoke API keys.")

DAY = 86_400
HOUR = 3_600
# The records of an audit log are small.
_MOST_RECORDED, _LONGEST_RECORDED = 64, 256
_key_id = click.argument("key_id")


@keys.command("create")
@click.option("--client", required=True, help="The client that the key is for.")
@click.option("--scope", "scopes", multiple=True, help="A scope of the key; can be repeated.")
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    help="An endpoint or URL rule that the key is restricted to; can be repeated. Default: all.",
)
@click.option("--plan", default="default", show_default=True, help="The plan in SECURE_ML_PLANS.")
@click.option("--expires-days", type=click.IntRange(min=1), help="Days until the key expires. Default: never.")
@json_option
def create(
    client: str,
    scopes: Sequence[str],
    endpoints: Sequence[str],
    plan: str,
    expires_days: int | None,
    as_json: bool,
) -> None:
    """Create an API key and print it; it cannot be printed again."""
    state = command_state()
    if plan not in state.settings.plans:
        raise click.ClickException(f"unknown plan {plan!r}; SECURE_ML_PLANS has {', '.join(state.settings.plans)}")
    now = state.clock.now()
    with _mistakes_as_messages():
        key, record = issue_key(
            _store(state),
            _pepper(state),
            client=client,
            scopes=scopes,
            now=now,
            plan=plan,
            expires=None if expires_days is None else now + expires_days * DAY,
            endpoints=endpoints or None,
        )
    _print_new(key, record, as_json)
    named = [scope[:_LONGEST_RECORDED] for scope in sorted(record.scopes)]
    left_out = {"scopes_left_out": len(named) - _MOST_RECORDED} if len(named) > _MOST_RECORDED else {}
    members = {"scopes": named[:_MOST_RECORDED], "plan": record.plan, **left_out}
    audit_event("key_created", key=record.id, client=record.client, **members)
    for warning in unknown_names(record, state.policies):
        click.echo(f"Warning: {warning}", err=True)


@keys.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """List all keys, without their secrets."""
    state = command_state()
    with _mistakes_as_messages():
        records, uses = _store(state).list(), _store(state).last_used()
    if as_json:
        click.echo(json.dumps([as_members(record, uses) for record in records]))
    elif records:
        print_table(as_table(records, uses, state.clock.now()))
    else:
        click.echo(one_line(f"No API keys in {_location(state)}."))


@keys.command("show")
@_key_id
@json_option
def show(key_id: str, as_json: bool) -> None:
    """Show one key, without its secret."""
    state = command_state()
    with _mistakes_as_messages():
        records = {record.id: record for record in _store(state).list()}
        record, uses = records[key_id], _store(state).last_used()
    if as_json:
        click.echo(json.dumps(as_members(record, uses)))
    else:
        print_table(as_rows(record, uses, state.clock.now()))


@keys.command("rotate")
@_key_id
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, 8760),
    default=24,
    show_default=True,
    help="Hours until the old key is rejected; 0 rejects it immediately.",
)
@json_option
def rotate(key_id: str, overlap_hours: int, as_json: bool) -> None:
    """Replace a key with a new one that has the same scopes, plan and endpoints, and print the new key."""
    state = command_state()
    with _mistakes_as_messages():
        key, record = rotate_key(
            _store(state), _pepper(state), key_id, now=state.clock.now(), overlap=overlap_hours * HOUR
        )
    _print_new(key, record, as_json)
    audit_event("key_rotated", key=key_id, replaced_by=record.id, overlap_hours=overlap_hours)
    click.echo(f"{key_id} is accepted for at most {overlap_hours} more hours.", err=True)


@keys.command("revoke")
@_key_id
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Permanently revoke a key, effective within 100 ms."""
    _change(revoke_key, key_id, as_json)


@keys.command("disable")
@_key_id
@json_option
def disable(key_id: str, as_json: bool) -> None:
    """Reject a key until it is enabled again."""
    _change(disable_key, key_id, as_json)


@keys.command("enable")
@_key_id
@json_option
def enable(key_id: str, as_json: bool) -> None:
    """Accept a disabled key again."""
    _change(enable_key, key_id, as_json)


def _change(change: Callable[[KeyStore, str], KeyRecord], key_id: str, as_json: bool) -> None:
    store = _store(command_state())
    with _mistakes_as_messages():
        record = change(store, key_id)
        members = as_members(record, store.last_used()) if as_json else {}
    click.echo(json.dumps(members) if as_json else f"{record.id} is {record.status}")
    audit_event(f"key_{record.status if record.status != ACTIVE else 'enabled'}", key=record.id, client=record.client)


def _print_new(key: str, record: KeyRecord, as_json: bool) -> None:
    click.echo(json.dumps({"key": key, **as_members(record, {})}) if as_json else key)
    click.echo("Save this key now: only its hash is stored, so it cannot be printed again.", err=True)


def _store(state: AppState) -> KeyStore:
    if state.keys is None:
        raise missing(
            "SECURE_ML_API_KEYS",
            'set SECURE_ML_API_KEYS to the path of the file with the hashed API keys, or to "store"',
        )
    return state.keys


def _pepper(state: AppState) -> SecretRing:
    if state.settings.api_key_pepper is None:
        raise missing("SECURE_ML_API_KEY_PEPPER", 'set SECURE_ML_API_KEY_PEPPER, such as "env:API_KEY_PEPPER"')
    return state.settings.api_key_pepper


@contextmanager
def _mistakes_as_messages() -> Iterator[None]:
    try:
        with mistakes_as_messages():
            yield
    except KeyError as error:
        raise click.ClickException(_unknown(str(error.args[0]))) from None


def _unknown(name: str) -> str:
    """Return the message for an unknown key id.

    A key that is given instead of its id is a secret, so it is not repeated.
    """
    if name.startswith(PREFIX):
        found = id_of(name)
        return "that is not a key id" if found is None else f"that is a key; use its id, {found}"
    if name.startswith(_KIND):
        return f"that is a principal; use the key id, {name.removeprefix(_KIND)}"
    return f"unknown key id {name!r}; see: flask secure-ml keys list"


_KIND = "api_key:"
HEADINGS = ("Id", "Client", "Scopes", "Plan", "Created", "Expires", "Last used", "Status")
Uses = Mapping[str, int]


def as_members(record: KeyRecord, uses: Uses) -> dict[str, Any]:
    """Return the JSON object of a record, without its hash."""
    members = to_members(record) | {"last_used": uses.get(record.id)}
    del members["hash"]
    return members


def _location(state: AppState) -> str:
    given = str(state.settings.api_keys)
    if given == IN_STORE:
        return "the store"
    return given if Path(given).exists() else f"{given}, which does not exist"


def as_table(records: Sequence[KeyRecord], uses: Uses, now: float) -> list[tuple[str, ...]]:
    """Return the headings and one row for each record."""
    return [HEADINGS, *(_row(record, uses, now) for record in records)]


def as_rows(record: KeyRecord, uses: Uses, now: float) -> list[tuple[str, ...]]:
    """Return one row for each member of a record."""
    endpoints = "all" if record.endpoints is None else " ".join(sorted(record.endpoints))
    return [
        *zip(HEADINGS, _row(record, uses, now, "%Y-%m-%d %H:%M:%S UTC"), strict=True),
        ("Endpoints", endpoints or "-"),
        ("Replaced by", record.replaced_by or "-"),
    ]


def unknown_names(record: KeyRecord, policies: PolicyTable) -> Iterator[str]:
    """Yield a warning for each scope and endpoint of a key that the app does not know, which is probably a typo."""
    routes = list(policies.routes())
    needed = frozenset[str]().union(*(policy.scopes for _, _, policy in routes))
    names = {name for rule, _, _ in routes for name in (rule.rule, rule.endpoint)}
    for scope in sorted(record.scopes - needed):
        yield f"no route requires the scope {scope!r}; the routes require {', '.join(sorted(needed)) or 'none'}"
    for endpoint in sorted((record.endpoints or frozenset()) - names):
        yield f"the app has no endpoint or URL rule {endpoint!r}; see: flask secure-ml routes"


def _row(record: KeyRecord, uses: Uses, now: float, form: str = "%Y-%m-%d") -> tuple[str, ...]:
    used = uses.get(record.id)
    return (
        record.id,
        record.client,
        " ".join(sorted(record.scopes)) or "-",
        record.plan,
        _date(record.created, form),
        "never" if record.expires is None else _date(record.expires, form),
        "never" if used is None else _date(used, form),
        _status(record, now),
    )


def _status(record: KeyRecord, now: float) -> str:
    remarks = [record.status]
    if record.replaced_by is not None:
        remarks.append("replaced")
    if record.expired(now):
        remarks.append("expired")
    return ", ".join(remarks)


def _date(seconds: int, form: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)
