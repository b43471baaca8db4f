"""The members of the record of a request. None of them is a value that the client sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from marshmallow import Schema
from marshmallow.fields import List, Nested

from ...errors import NotAuthenticated, SecureMLError
from ...exchange import Exchange
from ...principal import network_of
from ..request_log.entry import clean, reason_of
from .records import Members, text

if TYPE_CHECKING:
    from ...policy.policy import Policy

POINTERS = 20
_SHORT = 256
_DIGITS = 12


def members_of(exchange: Exchange) -> Members:
    """Return who asked for what, with what result and why."""
    members: Members = {
        "action": "request",
        "code": exchange.code,
        "duration_us": int(exchange.milliseconds * 1000),
        "endpoint": None if exchange.endpoint is None else _shown(exchange.endpoint),
        "method": _shown(exchange.method),
        "network": network_of(exchange.client),
        "request_id": _shown(exchange.request_id),
        "status": exchange.status,
    }
    if exchange.policy is not None:
        members["policy"] = _named(exchange.policy)
    _add_principal(members, exchange)
    _add_result(members, exchange)
    return members


def stream_end_of(exchange: Exchange) -> Members:
    """Return the members of the second record of a streamed response."""
    members = members_of(exchange)
    members["action"] = "stream_end"
    if exchange.stream_error is not None:
        members["reason"] = _shown(exchange.stream_error)
    return members


def _shown(value: str) -> str:
    """Return a string without credentials, cut, and with all that does not print escaped."""
    if len(value) <= _SHORT and value.isprintable() and "sml_" not in value and "eyJ" not in value:
        return value
    return text(clean(value))


def _add_principal(members: Members, exchange: Exchange) -> None:
    principal = exchange.principal
    if principal is None:
        return
    members["credential"] = _shown(principal.token_id if principal.issuer else principal.subject)
    members["credential_kind"] = principal.kind
    members["plan"] = _shown(principal.plan)
    members["principal"] = _shown(principal.id)
    if principal.client_id:
        members["client"] = _shown(principal.client_id)


def _add_result(members: Members, exchange: Exchange) -> None:
    reason = reason_of(exchange)
    if reason is not None:
        members["reason"] = _shown(reason)
    if exchange.rejection is not None:
        _add_rejection(members, exchange.rejection, exchange.policy.body if exchange.policy else None)
    rows = exchange.rows if exchange.used_rows is None else exchange.used_rows
    if rows:
        members["rows"] = rows
    if exchange.model:
        members["model"] = _shown(exchange.model)
    if exchange.received_bytes:
        members["input_bytes"] = exchange.received_bytes
    if exchange.input_digest:
        members["input_digest"] = exchange.input_digest


def _add_rejection(members: Members, error: SecureMLError, schema: Schema | None) -> None:
    if isinstance(error, NotAuthenticated) and error.claimed:
        # The id of an API key that was presented with a wrong secret, or that does not exist.
        members["claimed"] = _shown(error.claimed)
    problems = error.members.get("errors")
    if isinstance(problems, list):
        # Where the faults are. The messages may quote bounds, which are no values of the client either, but long.
        pointers = [str(each.get("pointer", "")) for each in problems[:POINTERS] if isinstance(each, dict)]
        members["pointers"] = [_shown(_known(each, schema)) for each in pointers]


def _known(pointer: str, schema: Schema | None) -> str:
    """Return a pointer with ``*`` for each name that the client made up: it may be anything, such as a secret."""
    found: Any = schema
    many = schema is not None and schema.many
    tokens = []
    for token in pointer.split("/")[1:]:
        if isinstance(found, Schema) and not many:
            name = token.replace("~1", "/").replace("~0", "~")
            found = next((each for key, each in found.fields.items() if name == (each.data_key or key)), None)
            tokens.append("*" if found is None else token)
        else:
            is_index = token.isascii() and token.isdigit() and len(token) <= _DIGITS
            tokens.append(token if is_index else "*")
            found = found.inner if isinstance(found, List) else found
            many = False
        if isinstance(found, Nested):
            found, many = found.schema, found.many
    return "".join(f"/{each}" for each in tokens)


def _named(policy: Policy) -> str:
    if policy.public:
        return "public"
    return " ".join(sorted(policy.scopes)) or "authenticated"
