"""``flask secure-ml keys``: the whole life of API keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup

from ..authentication.api_keys.key import KeyRecord, KeyStore, to_members
from ..authentication.api_keys.lifecycle import disable_key, enable_key, issue_key, revoke_key, rotate_key
from ..errors import DependencyUnavailable
from ..policy.matching import PolicyTable
from ..secrets import SecretRing
from ..state import AppState
from .context import command_state, print_table

keys: AppGroup = AppGroup("keys", help="Create, list, rotate, disable and revoke API keys.")

DAY = 86_400
HOUR = 3_600
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_key_id = click.argument("key_id")


@keys.command("create")
@click.option("--client", required=True, help="Who the key is for.")
@click.option("--scope", "scopes", multiple=True, help="What the key allows; repeat it for several scopes.")
@click.option("--endpoint", "endpoints", multiple=True, help="An endpoint or URL rule it is for; all without it.")
@click.option("--plan", default="default", show_default=True, help="The plan in SECURE_ML_PLANS.")
@click.option("--expires-days", type=click.IntRange(min=1), help="Days until the key expires; never without it.")
@_as_json
def create(
    client: str,
    scopes: Sequence[str],
    endpoints: Sequence[str],
    plan: str,
    expires_days: int | None,
    as_json: bool,
) -> None:
    """Make an API key and print it, this once."""
    state = command_state()
    if plan not in state.settings.plans:
        raise click.ClickException(f"SECURE_ML_PLANS has no plan {plan!r}; it has {', '.join(state.settings.plans)}")
    now = state.clock.now()
    with _in_one_sentence():
        text, record = issue_key(
            _store(state),
            _pepper(state),
            client=client,
            scopes=scopes,
            now=now,
            plan=plan,
            expires=None if expires_days is None else now + expires_days * DAY,
            endpoints=endpoints or None,
        )
    _hand_out(text, record, as_json)
    for warning in unused_terms(record, state.policies):
        click.echo(f"Warning: {warning}", err=True)


@keys.command("list")
@_as_json
def list_keys(as_json: bool) -> None:
    """List every key, without its secret."""
    state = command_state()
    with _in_one_sentence():
        records, uses = _store(state).list(), _store(state).last_used()
    if as_json:
        click.echo(json.dumps([as_members(record, uses) for record in records]))
    else:
        print_table(as_table(records, uses, state.clock.now()))


@keys.command("show")
@_key_id
@_as_json
def show(key_id: str, as_json: bool) -> None:
    """Show all that is known of one key, without its secret."""
    state = command_state()
    with _in_one_sentence():
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
    help="Hours for which the old key goes on working; 0 ends it at once.",
)
@_as_json
def rotate(key_id: str, overlap_hours: int, as_json: bool) -> None:
    """Put a new key with the same terms in the place of one, and print it, this once."""
    state = command_state()
    with _in_one_sentence():
        text, record = rotate_key(
            _store(state), _pepper(state), key_id, now=state.clock.now(), overlap=overlap_hours * HOUR
        )
    _hand_out(text, record, as_json)
    click.echo(f"{key_id} is accepted for {overlap_hours} more hours at most.", err=True)


@keys.command("revoke")
@_key_id
@_as_json
def revoke(key_id: str, as_json: bool) -> None:
    """Refuse a key from the next request on, for good."""
    _change(revoke_key, key_id, as_json)


@keys.command("disable")
@_key_id
@_as_json
def disable(key_id: str, as_json: bool) -> None:
    """Refuse a key until it is enabled again."""
    _change(disable_key, key_id, as_json)


@keys.command("enable")
@_key_id
@_as_json
def enable(key_id: str, as_json: bool) -> None:
    """Accept a disabled key again."""
    _change(enable_key, key_id, as_json)


def _change(change: Callable[[KeyStore, str], KeyRecord], key_id: str, as_json: bool) -> None:
    store = _store(command_state())
    with _in_one_sentence():
        record = change(store, key_id)
        members = as_members(record, store.last_used()) if as_json else {}
    click.echo(json.dumps(members) if as_json else f"{record.id} is {record.status}")


def _hand_out(text: str, record: KeyRecord, as_json: bool) -> None:
    click.echo(json.dumps({"key": text, **as_members(record, {})}) if as_json else text)
    click.echo("Keep this key now: only its hash is stored, so it cannot be shown again.", err=True)


def _store(state: AppState) -> KeyStore:
    if state.keys is None:
        where = "set SECURE_ML_API_KEYS_FILE to the file that shall hold the hashed API keys"
        raise click.ClickException(f"{where}, or SECURE_ML_API_KEYS_IN_STORE")
    return state.keys


def _pepper(state: AppState) -> SecretRing:
    if state.settings.api_key_pepper is None:
        raise click.ClickException('set SECURE_ML_API_KEY_PEPPER, such as "env:API_KEY_PEPPER"')
    return state.settings.api_key_pepper


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Turn what a store raises into a message without a trace."""
    try:
        yield
    except KeyError as error:
        text = f"there is no key with the id {error.args[0]!r}; see: flask secure-ml keys list"
        raise click.ClickException(text) from None
    except DependencyUnavailable as error:
        raise click.ClickException(error.reason) from None
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


HEADINGS = ("Id", "Client", "Scopes", "Plan", "Created", "Expires", "Last used", "Status")
Uses = Mapping[str, int]


def as_members(record: KeyRecord, uses: Uses) -> dict[str, Any]:
    """Return a record for JSON, without its hash."""
    members = to_members(record) | {"last_used": uses.get(record.id)}
    del members["hash"]
    return members


def as_table(records: Sequence[KeyRecord], uses: Uses, now: float) -> list[tuple[str, ...]]:
    """Return a heading, and one row for each record."""
    return [HEADINGS, *(_row(record, uses, now) for record in records)]


def as_rows(record: KeyRecord, uses: Uses, now: float) -> list[tuple[str, ...]]:
    """Return one row for each fact of a record."""
    endpoints = "every one" if record.endpoints is None else " ".join(sorted(record.endpoints))
    return [
        *zip(HEADINGS, _row(record, uses, now, "%Y-%m-%d %H:%M:%S UTC"), strict=True),
        ("Endpoints", endpoints or "-"),
        ("Replaced by", record.replaced_by or "-"),
    ]


def unused_terms(record: KeyRecord, policies: PolicyTable) -> Iterator[str]:
    """Yield a sentence for scopes and endpoints of a key that the app does not know: most likely typing errors."""
    routes = list(policies.routes())
    asked = frozenset[str]().union(*(policy.scopes for _, _, policy in routes))
    names = {name for rule, _, _ in routes for name in (rule.rule, rule.endpoint)}
    for scope in sorted(record.scopes - asked):
        yield f"no route asks for the scope {scope!r}; they ask for {', '.join(sorted(asked)) or 'none'}"
    for endpoint in sorted((record.endpoints or frozenset()) - names):
        yield f"the app has neither an endpoint nor a URL rule {endpoint!r}; see: flask secure-ml routes"


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
