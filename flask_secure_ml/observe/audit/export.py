"""Records in the forms that other systems read: ECS (Elastic Common Schema) and CEF (Common Event Format)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .records import Members

ECS_VERSION = "8.11.0"
_CLIENT_ERROR = 400
_HEADER = re.compile(r"([\\|])")
_VALUE = re.compile(r"([\\=])")
# CEF has 0 to 10; 7 and more is high.
_SEVERITY = {"request": 3, "stream_end": 3, "gap": 9, "outage": 7, "block": 6}


def as_ecs(record: Members) -> dict[str, Any]:
    """Return a record as an ECS document."""
    status = record.get("status")
    event: dict[str, Any] = {
        "action": record["action"],
        "category": ["web"] if isinstance(status, int) else ["configuration"],
        "kind": "event",
        "module": "flask_secure_ml",
        "outcome": _outcome(status),
        "reason": record.get("reason"),
        "sequence": record.get("seq"),
    }
    if "duration_us" in record:
        event["duration"] = record["duration_us"] * 1000
    document: dict[str, Any] = {
        "@timestamp": record["time"],
        "client": {"ip": record.get("network")},
        "ecs": {"version": ECS_VERSION},
        "error": {"code": record.get("code")},
        "event": event,
        "flask_secure_ml": {name: value for name, value in record.items() if name not in _ELSEWHERE},
        "http": {
            "request": {"id": record.get("request_id"), "method": record.get("method")},
            "response": {"status_code": status},
        },
        "user": {"id": record.get("principal"), "name": record.get("client")},
    }
    return _filled(document)


def as_cef(record: Members) -> str:
    """Return a record as one line of CEF."""
    action = str(record["action"])
    status = record.get("status")
    severity = _SEVERITY.get(action, 4) + (3 if isinstance(status, int) and status >= _CLIENT_ERROR else 0)
    head = "|".join(
        _HEADER.sub(r"\\\1", each)
        for each in ("flask-secure-ml", "flask-secure-ml", str(record.get("version", "1")), action, _title(record))
    )
    pairs = ((name, record.get(member)) for name, member in _CEF.items())
    extension = " ".join(f"{name}={_value(value)}" for name, value in pairs if value is not None)
    return f"CEF:0|{head}|{min(severity, 10)}|{extension}"


_ELSEWHERE = {
    *("action", "client", "code", "duration_us", "method", "network", "principal", "reason", "request_id", "seq"),
    *("status", "time"),
}
_CEF = {
    "rt": "time",
    "src": "network",
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
    "msg": "message",
}


def _title(record: Mapping[str, Any]) -> str:
    status = record.get("status")
    return str(record["action"]) if status is None else f"{record['action']} {status}"


def _value(value: Any) -> str:
    return _VALUE.sub(r"\\\1", str(value))


def _outcome(status: Any) -> str:
    if not isinstance(status, int):
        return "unknown"
    return "success" if status < _CLIENT_ERROR else "failure"


def _filled(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without what is not known."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        kept = _filled(value) if isinstance(value, dict) else value
        if kept is not None and kept != {}:
            found[name] = kept
    return found
