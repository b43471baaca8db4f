"""The members of a line: what is logged of a request."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

from ...errors import SecureMLError, own_text
from ...exchange import Exchange

if TYPE_CHECKING:
    from ...limits.guard import Report

_CREDENTIAL = re.compile(r"(sml_|eyJ)[A-Za-z0-9_.\-]+")
LONGEST = 256
"""The most characters of a value of the client."""

_MOST_POINTERS = 10
_ERRORS = 400
_SERVER_ERRORS = 500
_NO_BODY = frozenset({204, 304})
_ROUNDING = 1e-6
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def entry(exchange: Exchange) -> dict[str, Any]:
    """Return the members of the log line of an exchange."""
    rejection, principal, method = exchange.rejection, exchange.principal, exchange.method
    logged: dict[str, Any] = {
        "time": datetime.fromtimestamp(exchange.time, UTC).isoformat(timespec="milliseconds"),
        "request_id": exchange.request_id,
        "client": exchange.client,
        "principal": None if principal is None else principal.id[:LONGEST],
        "method": method if method in _METHODS else clean(method),
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
        logged["path"] = clean(exchange.path)
    elif (rule := getattr(exchange.guarded, "url_rule", None)) is not None:
        logged["http.route"] = rule.rule
    if exchange.body_size is not None and method != "HEAD" and _is_measured(exchange.status):
        logged["http.response.body.size"] = exchange.body_size
    if exchange.limits is not None:
        _add_limits(logged, exchange.limits)
    if exchange.out_of_range:
        logged["out_of_range"] = exchange.out_of_range
    if rejection is not None and rejection.members:
        _add_pointers(logged, rejection)
    return logged


def _is_measured(status: int) -> bool:
    # A 5xx may have replaced the response that was measured, and servers send no body with the others.
    return status < _SERVER_ERRORS and status not in _NO_BODY


def _add_limits(logged: dict[str, Any], report: Report) -> None:
    """Add the rows that were charged, and the limit that rejected the request or of which the least is left."""
    tightest, label, left, rows, allowed = 2.0, "", 0.0, 0, True
    for charge, verdict in zip(report.outcome.charges, report.outcome.verdicts, strict=True):
        allowed = allowed and verdict.allowed
        for rule, count, price in zip(charge.rules.rules, verdict.counts, charge.prices, strict=True):
            rest = rule.capacity - count.used
            share = -1.0 if count.wait else rest / rule.capacity
            if share < tightest:
                tightest, label, left = share, rule.label, rest
            if rule.unit == "rows":
                rows = price
        if verdict.penalty:
            tightest, label, left = -2.0, "backoff", 0.0
    if label:
        logged["limit"] = label
        logged["limit_remaining"] = int(left + _ROUNDING) if left > 0 else 0
    if rows and allowed:
        logged["rows"] = rows


def _add_pointers(logged: dict[str, Any], rejection: SecureMLError) -> None:
    """Add where a body is wrong (RFC 6901), and never what stands there."""
    found = rejection.members.get("errors")
    if isinstance(found, list):
        logged["pointers"] = [clean(str(each.get("pointer", ""))) for each in found[:_MOST_POINTERS]]


def reason_of(exchange: Exchange) -> str | None:
    """Return the private reason of a rejection, or what the app raised; None if there is neither."""
    return clean(exchange.rejection.reason) if exchange.rejection else _reason(exchange)


def _reason(exchange: Exchange) -> str | None:
    """Return what the app raised, whether one of its handlers responded to it or not; None if that is no error."""
    error = exchange.fault or exchange.handled
    if error is None or (exchange.fault is None and exchange.status < _ERRORS):
        return None
    name = type(error).__name__
    if isinstance(error, HTTPException) and error.code == exchange.status:
        text = own_text(error) or _message(error)
        return name if text is None else clean(f"{name}: {text}")
    # The message of any other exception may quote the payload, so only its type is logged.
    return name if exchange.fault is None else f"unhandled {name}"


def _message(error: HTTPException) -> str | None:
    # Where flask-smorest and flask-restx keep the keyword of their abort().
    data = getattr(error, "data", None)
    message = data.get("message") if isinstance(data, dict) else None
    return message if isinstance(message, str) else None


def clean(value: str, longest: int = LONGEST) -> str:
    """Return a string of the client with its credentials redacted, cut to so many characters."""
    return _CREDENTIAL.sub("[redacted]", value[: 4 * longest])[:longest]
