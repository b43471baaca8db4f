"""One revocation: what it refuses, and its form in a store."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..strictjson import loads

TOKEN, PRINCIPAL, BEFORE = "token", "principal", "before"
_TEXTS = ("kind", "issuer", "token_id", "principal")
_NUMBERS = ("instant", "created", "expires")
_YEAR_10000 = 253_402_300_800


@dataclass(frozen=True)
class Revocation:
    """One record.

    :param kind: ``token``, ``principal`` or ``before``.
    :param issuer: of the token, or whose tokens ``before`` is about; empty for all.
    :param token_id: the ``jti`` of the token.
    :param principal: the ``Principal.id`` that is refused, or that ``before`` is about; empty for all.
    :param instant: for ``before``, seconds since the epoch; what was issued then or earlier is refused.
    :param created: when it was revoked, in seconds since the epoch.
    :param expires: until when this is remembered, in seconds since the epoch; None until it is undone.
    """

    kind: str
    issuer: str = ""
    token_id: str = ""
    principal: str = ""
    instant: float = 0.0
    created: float = 0.0
    expires: float | None = None

    @property
    def key(self) -> str:
        """The name of the record: the same for what is the same revocation."""
        parts = json.dumps([self.kind, self.issuer, self.token_id, self.principal])
        return hashlib.sha256(parts.encode()).hexdigest()[:24]

    def __str__(self) -> str:
        """Return what is refused, for people."""
        if self.kind == TOKEN:
            return f"token {self.token_id} of {self.issuer}"
        if self.kind == PRINCIPAL:
            return f"principal {self.principal}"
        until = datetime.fromtimestamp(self.instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"what was issued to {self.principal or self.issuer or 'anyone'} until {until}"


def dump_revocation(record: Revocation) -> bytes:
    """Return the form of a record in a store.

    :raises ValueError: it could not be read back.
    """
    raw = json.dumps(asdict(record)).encode()
    parse_revocation(raw)
    return raw


def parse_revocation(raw: bytes) -> Revocation:
    """Read one record.

    :raises ValueError: it is not one.
    """
    members = loads(raw)
    if not isinstance(members, dict) or members.keys() != {*_TEXTS, *_NUMBERS}:
        raise ValueError("a revocation has missing or unknown members")
    if not all(isinstance(members[name], str) for name in _TEXTS) or members["kind"] not in {TOKEN, PRINCIPAL, BEFORE}:
        raise ValueError("a revocation has texts of wrong types")
    if not all(_is_instant(members[name]) or (name == "expires" and members[name] is None) for name in _NUMBERS):
        raise ValueError("a revocation has instants that are none")
    return Revocation(**members)


def _is_instant(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _YEAR_10000
