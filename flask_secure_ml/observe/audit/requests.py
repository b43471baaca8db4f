"""The members of request records, without values that the client sent."""

from __future__ import annotations

from marshmallow import Schema

from ...errors import MalformedRequest, NotAuthenticated, SecureMLError
from ...exchange import Exchange
from ...principal import network_of
from ..request_log.entry import clean, known_pointer, reason_of
from .records import Members, text

POINTERS = 20
_SHORT = 256


def members_of(exchange: Exchange, model: str = "") -> Members:
    """Return the members of the record of a response.

    :param model: the model of requests whose body was accepted and for which the view names none.
    """
    strings = _strings(exchange, model)
    if not _is_shown("".join(strings.values())):
        strings = {name: text(clean(value)) for name, value in strings.items()}
    members: Members = {
        **strings,
        "action": "request",
        "code": exchange.code,
        "duration_us": int((exchange.finished - exchange.started) * 1_000_000),
        "network": network_of(exchange.client),
        "status": exchange.status,
    }
    if exchange.endpoint is None:
        members["endpoint"] = None
    if exchange.policy is not None:
        members["policy"] = exchange.policy.requirement
    _add_result(members, exchange)
    return members


def stream_end_of(exchange: Exchange, model: str = "") -> Members:
    """Return the members of the second record of a streamed response."""
    members = members_of(exchange, model)
    members["action"] = "stream_end"
    if exchange.stream_error is not None:
        members["reason"] = _shown(exchange.stream_error)
    return members


def _strings(exchange: Exchange, model: str) -> dict[str, str]:
    """Return the members with names; they are checked as one string, which is faster than one by one."""
    found = {"method": exchange.method, "request_id": exchange.request_id}
    if exchange.endpoint is not None:
        found["endpoint"] = exchange.endpoint
    principal = exchange.principal
    if principal is not None:
        found["credential"] = principal.token_id if principal.issuer else principal.subject
        found["credential_kind"] = principal.kind
        found["plan"] = principal.plan
        found["principal"] = principal.id
        if principal.client_id:
            found["client"] = principal.client_id
    if exchange.model_name:
        model = f"{exchange.model_name}@{exchange.model_version}" if exchange.model_version else exchange.model_name
    elif not exchange.received_bytes or exchange.cleared is None:
        return found
    if model:
        found["model"] = model
    return found


def _is_shown(value: str) -> bool:
    """Return True if a string is short, printable and free of credentials."""
    return len(value) <= _SHORT and value.isprintable() and "sml_" not in value and "eyJ" not in value


def _shown(value: str) -> str:
    """Return a string truncated, with credentials removed and non-printable characters escaped."""
    return value if _is_shown(value) else text(clean(value))


def _add_result(members: Members, exchange: Exchange) -> None:
    reason = reason_of(exchange)
    if reason is not None:
        members["reason"] = _shown(reason)
    if exchange.rejection is not None:
        _add_rejection(members, exchange.rejection, exchange.policy.body if exchange.policy else None)
    rows = exchange.rows if exchange.used_rows is None else exchange.used_rows
    if rows:
        members["rows"] = rows
    if exchange.received_bytes:
        members["input_bytes"] = exchange.received_bytes
    if exchange.input_digest:
        members["input_digest"] = exchange.input_digest


def _add_rejection(members: Members, error: SecureMLError, schema: Schema | None) -> None:
    if isinstance(error, NotAuthenticated) and error.claimed:
        # The id of an API key that was presented with a wrong secret or does not exist.
        members["claimed"] = _shown(error.claimed)
    problems = error.members.get("errors")
    if isinstance(problems, list) and not isinstance(error, MalformedRequest):
        # The locations of the errors, without the messages, which may be long.
        pointers = [str(each.get("pointer", "")) for each in problems[:POINTERS] if isinstance(each, dict)]
        members["pointers"] = [_shown(known_pointer(each, schema)) for each in pointers]
