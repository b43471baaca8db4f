"""One revocation: what it refuses, and its form in a store."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..strictjson import loads

TOKEN, PRINCIPAL, BEFORE = "token", "principal", "before"
_ORDER = ("kind", "issuer", "token_id", "principal", "instant", "created", "expires")
_MEMBERS = frozenset(_ORDER)
_NUMBERS = (int, float)

# Whether each kind names an issuer, a token and a principal: exactly one record can mean the same.
_NAMED = {
    TOKEN: {(True, True, False)},
    PRINCIPAL: {(False, False, True)},
    BEFORE: {(False, False, False), (True, False, False), (False, False, True)},
}
_YEAR_10000 = 253_402_300_800


@dataclass(frozen=True, slots=True)
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
        # With their lengths, so that no part can hold the beginning of the next.
        parts = "".join(f"{len(part)}:{part}" for part in (self.kind, self.issuer, self.token_id, self.principal))
        return hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

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
    if not isinstance(members, dict) or members.keys() != _MEMBERS:
        raise ValueError("a revocation has missing or unknown members")
    kind, issuer, token_id, principal, instant, created, expires = map(members.__getitem__, _ORDER)
    named = kind, issuer, token_id, principal
    if set(map(type, named)) != {str} or kind not in _NAMED:
        raise ValueError("a revocation has texts of wrong types")
    if not (_is_instant(instant) and _is_instant(created) and (expires is None or _is_instant(expires))):
        raise ValueError("a revocation has instants that are none")
    if (issuer != "", token_id != "", principal != "") not in _NAMED[kind]:
        raise ValueError("a revocation names more or less than its kind does")
    # A hundred thousand records name a few issuers, and every worker keeps them all.
    return Revocation(sys.intern(kind), sys.intern(issuer), token_id, principal, instant, created, expires)


def _is_instant(value: Any) -> bool:
    return type(value) in _NUMBERS and 0 <= value < _YEAR_10000
