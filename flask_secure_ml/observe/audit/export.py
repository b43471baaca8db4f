"""Exports records as ECS (Elastic Common Schema) and CEF (Common Event Format)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from .records import BrokenLineError, Members, seconds_of, text

ECS_VERSION = "8.11.0"
_CLIENT_ERROR = 400
_IPV6 = 6
_HEADER = re.compile(r"([\\|])")
_VALUE = re.compile(r"([\\=])")
# CEF severities are 0 to 10; 7 and above is high.
_SEVERITY = {"request": 3, "stream_end": 3, "gap": 9, "outage": 7, "block": 6, "anomaly": 6}


def as_ecs(record: Members) -> dict[str, Any]:
    """Return a record as an ECS document."""
    status = record.get("status")
    event: dict[str, Any] = {
        "action": record.get("action"),
        "category": ["web"] if isinstance(status, int) else ["configuration"],
        "kind": "event",
        "module": "flask_secure_ml",
        "outcome": _outcome(status),
        "reason": record.get("reason"),
        "sequence": record.get("seq"),
    }
    if isinstance(duration := record.get("duration_us"), int):
        event["duration"] = duration * 1000
    # The user is who acted: an operator who runs a command on a key is not the client of the key.
    actor = "user" if "user" in record else "client"
    elsewhere = {*_ELSEWHERE, actor}
    document: dict[str, Any] = {
        "@timestamp": record.get("time"),
        "client": _client(record.get("network")),
        "ecs": {"version": ECS_VERSION},
        "error": {"code": record.get("code")},
        "event": event,
        "flask_secure_ml": {name: value for name, value in record.items() if name not in elsewhere},
        "http": {
            "request": {"id": record.get("request_id"), "method": record.get("method")},
            "response": {"status_code": status},
        },
        "user": {"id": record.get("principal"), "name": record.get(actor)},
    }
    return _filled(document)


def as_cef(record: Members) -> str:
    """Return a record as one line of CEF, with non-printable characters escaped."""
    action = str(record.get("action"))
    status = record.get("status")
    severity = _SEVERITY.get(action, 4) + (3 if isinstance(status, int) and status >= _CLIENT_ERROR else 0)
    head = "|".join(
        _HEADER.sub(r"\\\1", text(each))
        for each in ("flask-secure-ml", "flask-secure-ml", str(record.get("version", "1")), action, _title(record))
    )
    extension = " ".join(f"{name}={_value(value)}" for name, value in _extension(record) if value is not None)
    return f"CEF:0|{head}|{min(severity, 10)}|{extension}"


_ELSEWHERE = {
    *("action", "code", "duration_us", "method", "network", "principal", "reason", "request_id", "seq"),
    *("status", "time"),
}
_CEF = {
    "suser": "principal",
    "suid": "credential",
    "requestMethod": "method",
    "request": "endpoint",
    "outcome": "status",
    "reason": "reason",
    "externalId": "request_id",
    "cs1": "stream",
    "cn1": "seq",
    "cs2": "code",
    "cs3": "input_digest",
}
_LABELS = ("cs1", "cn1", "cs2", "cs3")
_SENTENCES = ("message", "explanation")
# These have their own places, or are only for the verification of the log.
_NOT_IN_MSG = {*_CEF.values(), *_SENTENCES, "action", "network", "prev", "sealed", "signature", "time", "version"}


def _extension(record: Members) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the CEF dictionary with their values; ``msg`` has the members for which it has no key."""
    yield "rt", _milliseconds(record.get("time"))
    address = _address(record.get("network"))
    if address is not None and address.version == _IPV6:
        yield from (("c6a2", address), ("c6a2Label", "Source IPv6 Address"))
    else:
        yield "src", address
    for name, member in _CEF.items():
        value = record.get(member)
        if member == "principal" and value is None:
            value = record.get("user")
        yield name, value
        if name in _LABELS and value is not None:
            yield f"{name}Label", member
    sentences = [str(record[name]) for name in _SENTENCES if record.get(name) is not None]
    others = [
        f"{name}: {_words(value)}" for name, value in record.items() if name not in _NOT_IN_MSG and value is not None
    ]
    yield "msg", ", ".join([*sentences, *others]) or None


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _client(network: Any) -> dict[str, Any]:
    # The type of client.ip is an IP address, so a collector would reject another string.
    address = _address(network)
    return {"address": network, "ip": None if address is None else str(address)}


def _address(network: Any) -> IPv4Address | IPv6Address | None:
    """Return the IP address of a network; None for a Unix socket."""
    try:
        return ip_address(str(network))
    except ValueError:
        return None


def _milliseconds(time: Any) -> int | None:
    """Return a time in milliseconds since the epoch; None if it is invalid."""
    try:
        return round(seconds_of(time) * 1000)
    except BrokenLineError:
        return None


def _title(record: Mapping[str, Any]) -> str:
    status = record.get("status")
    return str(record.get("action")) if status is None else f"{record.get('action')} {status}"


def _value(value: Any) -> str:
    return _VALUE.sub(r"\\\1", text(str(value)))


def _outcome(status: Any) -> str:
    if not isinstance(status, int):
        return "unknown"
    return "success" if status < _CLIENT_ERROR else "failure"


def _filled(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without missing values."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        kept = _filled(value) if isinstance(value, dict) else value
        if kept is not None and kept != {}:
            found[name] = kept
    return found
