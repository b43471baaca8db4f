"""The input of the signals: a request from its exchange, or from its line in the request log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...exchange import MAX_PRICE, Exchange
from ...principal import network_of
from .distinct import digest

UNNAMED = ":?"
"""The value of an attempt whose credential claims no identity."""

_ERRORS, _SERVER_ERRORS = 400, 500
_NOT_ALLOWED = frozenset({403, 405})


@dataclass(slots=True)
class Observation:
    """One request and its response, or several similar ones of one subject from another worker.

    :param time: the start time in seconds since the epoch; for several, that of the last one.
    :param principal: the id of the caller; empty if it is anonymous or was rejected.
    :param network: the network of the client.
    :param status: the status of the response.
    :param target: the digest of a URL that does not exist or is not allowed; otherwise 0.
    :param attempted: the identity that a rejected credential claims: the name of the method, a colon and an id or
        digest, or :data:`UNNAMED`; otherwise empty. It is never the principal.
    :param rows: the number of charged rows.
    :param size: the total size of the bodies in bytes, as far as it is known.
    :param count: the number of requests.
    :param times: the start time of each request, for several.
    """

    time: float
    principal: str
    network: str
    status: int
    target: int = 0
    attempted: str = ""
    rows: int = 0
    size: int = 0
    count: int = 1
    times: tuple[float, ...] = ()


def target_of(status: int, endpoint: str | None, path: str) -> int:
    """Return the digest of an unknown path or of an endpoint that rejected with 403 or 405, else 0.

    A 404 of an existing endpoint is not counted: clients look up what may be missing.
    """
    if not _ERRORS <= status < _SERVER_ERRORS or (endpoint is not None and status not in _NOT_ALLOWED):
        return 0
    return digest(endpoint or path)


def observation_of(exchange: Exchange) -> Observation:
    """Return the observation of an exchange."""
    principal = exchange.principal
    status = exchange.status
    return Observation(
        exchange.time,
        "" if principal is None else principal.id,
        network_of(exchange.client),
        status,
        0 if status < _ERRORS else target_of(status, exchange.endpoint, exchange.path),
        exchange.attempted,
        exchange.rows,
        exchange.received_bytes + (exchange.body_size or 0),
    )


def observation_in(record: Mapping[str, Any]) -> Observation | None:
    """Return the observation of a line of the request log; None if it is not a request.

    The log does not contain the identity that a rejected credential claimed.
    """
    status, client = record.get("status"), record.get("client")
    if "event" in record or "logger" in record or not isinstance(status, int) or not isinstance(client, str):
        return None
    try:
        time = datetime.fromisoformat(record["time"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return Observation(
        time,
        _string(record.get("principal")),
        network_of(client),
        status,
        target_of(status, _string(record.get("endpoint")) or None, _string(record.get("path"))),
        rows=_number(record.get("rows")),
        size=_number(record.get("bytes_in")) + _number(record.get("http.response.body.size")),
    )


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return min(value, MAX_PRICE) if isinstance(value, int) and value > 0 else 0
