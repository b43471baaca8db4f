"""The members of a log line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from marshmallow import Schema
from marshmallow.fields import List, Nested
from werkzeug.exceptions import HTTPException, NotFound

from ...errors import MalformedRequest, SecureMLError, own_text
from ...exchange import Exchange
from ..instants import Instants

if TYPE_CHECKING:
    from ...limits.guard import Report

_CREDENTIAL = re.compile(r"(sml_|eyJ)[A-Za-z0-9_.\-]+")
LONGEST = 256
"""Maximum number of characters of a value from the client."""

_MOST_POINTERS = 10
_DIGITS = 12
_ERRORS = 400
_SERVER_ERRORS = 500
_NO_BODY = frozenset({204, 304})
_ROUNDING = 1e-6
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Standard methods; others are chosen by clients."""


def entry(exchange: Exchange, instants: Instants | None = None) -> dict[str, Any]:
    """Return the members of the log line of an exchange.

    :param instants: formats the time; each log has its own.
    """
    began, microseconds = (instants or Instants()).split(exchange.time)
    rejection, principal, method = exchange.rejection, exchange.principal, exchange.method
    logged: dict[str, Any] = {
        "time": f"{began}.{microseconds // 1000:03d}+00:00",
        "request_id": exchange.request_id,
        "client": exchange.client,
        "principal": None if principal is None else principal.id[:LONGEST],
        "method": method if method in METHODS else clean(method),
        "endpoint": exchange.endpoint,
        "status": exchange.status,
        "code": exchange.code,
        "reason": reason_of(exchange),
        "ms": round((exchange.finished - exchange.started) * 1000, 3),
        "bytes_in": exchange.received_bytes,
    }
    if exchange.trace_id:
        logged["trace_id"] = exchange.trace_id
    if principal is not None:
        logged["plan"] = principal.plan[:LONGEST]
        if principal.client_id:
            logged["client_id"] = principal.client_id[:LONGEST]
    if exchange.endpoint is None:
        _add_path(logged, exchange)
    elif (rule := getattr(exchange.guarded, "url_rule", None)) is not None:
        logged["http.route"] = rule.rule
    if exchange.body_size is not None and method != "HEAD" and _is_measured(exchange.status):
        logged["http.response.body.size"] = exchange.body_size
    _add_prediction(logged, exchange)
    if rejection is not None and rejection.members:
        _add_pointers(logged, rejection, None if exchange.policy is None else exchange.policy.body)
    return logged


def _add_path(logged: dict[str, Any], exchange: Exchange) -> None:
    """Add the path of an unknown URL; the path of a route may contain values.

    If a request failed before routing, only the path identifies the URL.
    """
    request = exchange.guarded
    if request is None or isinstance(getattr(request, "routing_exception", None), NotFound):
        logged["path"] = clean(exchange.path)


def _add_prediction(logged: dict[str, Any], exchange: Exchange) -> None:
    """Add what the limits charged, and the input and the model of a prediction."""
    if exchange.limits is not None:
        _add_limits(logged, exchange.limits)
    if exchange.rows:
        logged["rows"] = exchange.rows
    if exchange.out_of_range:
        logged["out_of_range"] = exchange.out_of_range
    if exchange.model_name:
        logged["model.name"] = clean(exchange.model_name)
        if exchange.model_version:
            logged["model.version"] = clean(exchange.model_version)


def _is_measured(status: int) -> bool:
    # A 5xx may have replaced the measured response, and responses with the other statuses have no body.
    return status < _SERVER_ERRORS and status not in _NO_BODY


def _add_limits(logged: dict[str, Any], report: Report) -> None:
    """Add the limit that rejected the request or has the least remaining."""
    tightest, label, left = 2.0, "", 0.0
    for charge, verdict in zip(report.outcome.charges, report.outcome.verdicts, strict=True):
        for rule, count in zip(charge.rules.rules, verdict.counts, strict=True):
            rest = rule.capacity - count.used
            share = -1.0 if count.wait else rest / rule.capacity
            if share < tightest:
                tightest, label, left = share, rule.label, rest
        if verdict.penalty:
            tightest, label, left = -2.0, "backoff", 0.0
    if label:
        logged["limit"] = label
        logged["limit_remaining"] = int(left + _ROUNDING) if left > 0 else 0


def _add_pointers(logged: dict[str, Any], rejection: SecureMLError, schema: Schema | None) -> None:
    """Add the locations of errors in a body, without the values."""
    found = rejection.members.get("errors")
    # The only pointer of a malformed body is the whole body.
    if isinstance(found, list) and not isinstance(rejection, MalformedRequest):
        pointers = [str(each.get("pointer", "")) for each in found[:_MOST_POINTERS]]
        logged["pointers"] = [clean(known_pointer(each, schema)) for each in pointers]


def known_pointer(pointer: str, schema: Schema | None) -> str:
    """Return a pointer (RFC 6901) with ``*`` for each name that is not in the schema."""
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


def reason_of(exchange: Exchange) -> str | None:
    """Return the private reason of a rejection or a denied preflight, the exception of the app, or None."""
    if exchange.rejection is not None:
        return clean(exchange.rejection.reason)
    if exchange.denied:
        return exchange.denied
    return None if exchange.fault is None and exchange.handled is None else _reason(exchange)


def _reason(exchange: Exchange) -> str | None:
    """Return the exception of the app, even if one of its handlers responded; None if it is not an error."""
    error = exchange.fault or exchange.handled
    if error is None or (exchange.fault is None and exchange.status < _ERRORS):
        return None
    name = type(error).__name__
    if isinstance(error, HTTPException) and error.code == exchange.status:
        text = own_text(error) or _message(error)
        return name if text is None else clean(f"{name}: {text}")
    # The message of any other exception may contain the payload, so only its type is logged.
    return name if exchange.fault is None else f"unhandled {name}"


def _message(error: HTTPException) -> str | None:
    # The attribute in which flask-smorest and flask-restx store the keyword argument of abort().
    data = getattr(error, "data", None)
    message = data.get("message") if isinstance(data, dict) else None
    return message if isinstance(message, str) else None


def known_method(method: str) -> str:
    """Return a standard method, or ``_OTHER`` for any other, as in OpenTelemetry."""
    return method if method in METHODS else "_OTHER"


def clean(value: str, longest: int = LONGEST) -> str:
    """Return a client's string truncated and with credentials redacted."""
    return _CREDENTIAL.sub("[redacted]", value[: 4 * longest])[:longest]
