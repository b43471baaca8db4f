"""How the commands show API keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..authentication.key_store import KeyRecord, to_members
from ..policy_table import PolicyTable

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
