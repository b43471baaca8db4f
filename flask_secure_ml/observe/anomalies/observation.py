"""What the signals see of a request: from its exchange, or from its line in the request log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...exchange import MAX_PRICE, Exchange
from ...principal import network_of


@dataclass(slots=True)
class Observation:
    """One request and its response.

    :param time: when it began, in seconds since the epoch.
    :param principal: the id of the caller; empty for an anonymous or rejected one.
    :param network: of the client.
    :param status: of the response.
    :param endpoint: None for an unknown URL.
    :param path: of the URL.
    :param claimed: the id in an API key that was rejected; empty otherwise.
    :param rows: how many were charged.
    :param size: bytes of the bodies of request and response, where they are known.
    """

    time: float
    principal: str
    network: str
    status: int
    endpoint: str | None = None
    path: str = ""
    claimed: str = ""
    rows: int = 0
    size: int = 0


def observation_of(exchange: Exchange) -> Observation:
    """Return what the signals see of an exchange."""
    principal = exchange.principal
    return Observation(
        exchange.time,
        "" if principal is None else principal.id,
        network_of(exchange.client),
        exchange.status,
        exchange.endpoint,
        exchange.path,
        "" if exchange.rejection is None else getattr(exchange.rejection, "claimed", ""),
        exchange.rows,
        exchange.received_bytes + (exchange.body_size or 0),
    )


def observation_in(record: Mapping[str, Any]) -> Observation | None:
    """Return what the signals see of a line of the request log; None if it is not that of a request.

    The log does not have the id in a rejected API key.
    """
    status, client = record.get("status"), record.get("client")
    if "event" in record or not isinstance(status, int) or not isinstance(client, str):
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
        _string(record.get("endpoint")) or None,
        _string(record.get("path")),
        rows=_number(record.get("rows")),
        size=_number(record.get("bytes_in")) + _number(record.get("http.response.body.size")),
    )


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return min(value, MAX_PRICE) if isinstance(value, int) and value > 0 else 0
