"""Revocations: of one token, of a principal, or of everything issued up to some time."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..errors import DependencyUnavailable, UnusableCredential
from ..principal import Clock, Principal
from ..stores import SharedStore
from ..stores.snapshot import Snapshot
from ..strictjson import loads

TOKEN, PRINCIPAL, BEFORE = "token", "principal", "before"
_ORDER = ("kind", "issuer", "token_id", "principal", "instant", "created", "expires")
_MEMBERS = frozenset(_ORDER)
_NUMBERS = (int, float)

# Whether each kind has an issuer, a token id and a principal, so that equal revocations have equal records.
_NAMED = {
    TOKEN: {(True, True, False)},
    PRINCIPAL: {(False, False, True)},
    BEFORE: {(False, False, False), (True, False, False), (False, False, True)},
}
_YEAR_10000 = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Revocation:
    """The record of one revocation.

    :param kind: ``token``, ``principal`` or ``before``.
    :param issuer: of the token, or of all tokens that ``before`` revokes; empty for every issuer.
    :param token_id: the ``jti`` of the token.
    :param principal: the ``Principal.id`` that is revoked, or whose credentials ``before`` revokes; empty for all.
    :param instant: for ``before``, seconds since the epoch; credentials issued then or earlier are revoked.
    :param created: the time of the revocation, in seconds since the epoch.
    :param expires: the expiry of this record, in seconds since the epoch; None to keep it until it is undone.
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
        """The key of the record: equal for equal revocations."""
        # Length-prefixed, so that different parts cannot yield the same string.
        parts = "".join(f"{len(part)}:{part}" for part in (self.kind, self.issuer, self.token_id, self.principal))
        return hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

    def __str__(self) -> str:
        """Return a readable description of what is revoked."""
        if self.kind == TOKEN:
            return f"token {self.token_id} of {self.issuer}"
        if self.kind == PRINCIPAL:
            return f"principal {self.principal}"
        until = datetime.fromtimestamp(self.instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        source = f"by {self.issuer}" if self.issuer else f"to {self.principal or 'anyone'}"
        return f"credentials issued {source} until {until}"


def dump_revocation(record: Revocation) -> bytes:
    """Return a record as JSON for a store.

    :raises ValueError: :func:`parse_revocation` would reject it.
    """
    raw = json.dumps(asdict(record)).encode()
    parse_revocation(raw)
    return raw


def parse_revocation(raw: bytes) -> Revocation:
    """Parse one record.

    :raises ValueError: it is not a valid record.
    """
    members = loads(raw)
    if not isinstance(members, dict) or members.keys() != _MEMBERS:
        raise ValueError("a revocation has missing or unknown members")
    kind, issuer, token_id, principal, instant, created, expires = map(members.__getitem__, _ORDER)
    named = kind, issuer, token_id, principal
    if set(map(type, named)) != {str} or kind not in _NAMED:
        raise ValueError("a revocation has members that are not strings")
    if not (_is_instant(instant) and _is_instant(created) and (expires is None or _is_instant(expires))):
        raise ValueError("a revocation has an invalid time")
    if (issuer != "", token_id != "", principal != "") not in _NAMED[kind]:
        raise ValueError("a revocation has other members than its kind requires")
    # A hundred thousand records may share a few issuers, and every worker caches all of them.
    return Revocation(sys.intern(kind), sys.intern(issuer), token_id, principal, instant, created, expires)


def _is_instant(value: Any) -> bool:
    return type(value) in _NUMBERS and 0 <= value < _YEAR_10000


SPACE = "revocations"
KEPT = 31 * 86_400
"""Seconds for which the revocation of one token is kept by default; no token is valid for longer."""

AHEAD = 300
"""Seconds by which an instant may be in the future, for issuers whose clock is ahead (the maximum of
``SECURE_ML_TOKEN_LEEWAY``); a later one would revoke credentials that are not issued yet."""

_LONGEST = 2048


class _Index(dict[str, Revocation]):
    """The revocations by key, and indexed by the issuer, token and principal that they apply to.

    The key of a revocation is derived from its kind, issuer, token and principal. A new record therefore replaces the
    old one in a single assignment, and readers never find neither.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tokens: dict[tuple[str, str], Revocation] = {}
        self._principals: dict[str, Revocation] = {}
        self._before: dict[tuple[str, str], Revocation] = {}

    def __setitem__(self, key: str, record: Revocation) -> None:
        if key != record.key:
            raise ValueError(f"{key} has the record of {record.key}")
        positions, position = self._position(record)
        positions[position] = record
        super().__setitem__(key, record)

    def pop(self, key: str, default: Any = None) -> Any:
        """Remove a revocation and return it."""
        record = self.get(key)
        if record is None:
            return default
        positions, position = self._position(record)
        positions.pop(position, None)
        return super().pop(key)

    def find(self, principal: Principal) -> Revocation | None:
        """Return a revocation that applies to a principal, or None."""
        issuer, subject = principal.issuer, principal.id
        found = self._tokens.get((issuer, principal.token_id)) if principal.token_id else None
        found = found or self._principals.get(subject)
        if found is not None or not self._before:
            return found
        own = self._before.get(("", subject))
        if principal.issued is None:
            return own
        for each in (own, self._before.get((issuer, "")) if issuer else None, self._before.get(("", ""))):
            # Inclusive: a token issued in the same second may have been stolen too.
            if each is not None and principal.issued <= each.instant:
                return each
        return None

    def _position(self, record: Revocation) -> tuple[dict[Any, Revocation], Any]:
        if record.kind == TOKEN:
            return self._tokens, (record.issuer, record.token_id)
        if record.kind == PRINCIPAL:
            return self._principals, record.principal
        return self._before, (record.issuer, record.principal)


class Revocations:
    """The revocations of an app.

    :param store: stores the records; a change takes effect within a second in every process that shares the store.
    :param clock: measures the age of the cache.
    """

    def __init__(self, store: SharedStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._snapshot = Snapshot(store, SPACE, parse_revocation, clock, _Index)

    def poll(self) -> None:
        """Refresh the cache if it is due; never raises."""
        self._snapshot.poll()

    def ready(self) -> None:
        """Raise the error that :meth:`check` would raise for every principal.

        :raises DependencyUnavailable: the store has not responded for a minute, or is damaged.
        """
        try:
            self._snapshot.read()
        except ValueError as error:
            raise _damaged(error) from None

    def check(self, principal: Principal) -> None:
        """Check that a principal is not revoked.

        If its credential has no time of issue, a revocation of kind ``before`` applies only if it names the principal,
        and then regardless of its instant.

        :raises UnusableCredential: the principal, its token, or everything issued up to some time was revoked.
        :raises DependencyUnavailable: the store has not responded for a minute, or is damaged.
        """
        try:
            index = self._snapshot.read()
        except ValueError as error:
            raise _damaged(error) from None
        record = index.find(principal) if index else None
        if record is not None:
            raise UnusableCredential(f"revoked: {record} (revocation {record.key})")

    def revoke_token(self, issuer: str, token_id: str, *, seconds: float = KEPT) -> Revocation:
        """Revoke one token.

        :param token_id: its ``jti``.
        :param seconds: how long the record is kept; at least as long as the token is valid.
        :raises ValueError: the issuer or the id is not a printable string, or the seconds are not positive.
        :raises DependencyUnavailable: the store is down.
        """
        if not 0 < seconds < math.inf:
            raise ValueError("a revocation must be kept for a positive, finite number of seconds")
        record = Revocation(TOKEN, _printable(issuer), _printable(token_id))
        raw = self._store.get(SPACE, record.key)
        left = 0.0 if raw is None else (_parsed(raw).expires or math.inf) - self._clock.now()
        if left >= seconds:
            # If the record expired earlier, the token would be accepted earlier, which only undo() may cause.
            return _parsed(raw or b"")
        return self._store_one(record, seconds)

    def revoke_principal(self, principal_id: str) -> Revocation:
        """Revoke a principal with all its credentials, until :meth:`undo`.

        :param principal_id: its ``Principal.id``, as in the request log.
        :raises ValueError: the id does not have the format of one.
        :raises DependencyUnavailable: the store is down.
        """
        return self._store_one(Revocation(PRINCIPAL, principal=_principal(principal_id)))

    def revoke_before(
        self, instant: float, *, issuer: str | None = None, principal_id: str | None = None
    ) -> Revocation:
        """Revoke credentials issued at an instant or earlier: by one issuer, to one principal, or all.

        :param instant: seconds since the epoch; at most five minutes from now.
        :raises ValueError: both an issuer and a principal are given, or the instant is invalid, too late, or earlier
            than one that is revoked already: that would accept credentials again, which only :meth:`undo` may cause.
        :raises DependencyUnavailable: the store is down.
        """
        if issuer is not None and principal_id is not None:
            raise ValueError("name an issuer or a principal, not both")
        whose = "" if issuer is None else _printable(issuer), "" if principal_id is None else _principal(principal_id)
        record = Revocation(BEFORE, whose[0], principal=whose[1], instant=self._instant(instant))
        raw = self._store.get(SPACE, record.key)
        if raw is not None and _parsed(raw).instant > instant:
            raise ValueError(f"a later instant is already revoked; undo {record.key} first")
        return self._store_one(record)

    def undo(self, key: str) -> bool:
        """Delete a revocation by its key; return False if there is none.

        :raises DependencyUnavailable: the store is down.
        """
        done = self._store.delete(SPACE, key)
        self._snapshot.invalidate()
        return done

    def list(self) -> tuple[Revocation, ...]:
        """Return every revocation, oldest first.

        :raises DependencyUnavailable: the store is down or damaged.
        """
        found = [_parsed(raw) for raw in self._store.items(SPACE).values()]
        return tuple(sorted(found, key=lambda record: (record.created, record.key)))

    def _instant(self, instant: float) -> float:
        if not math.isfinite(instant) or instant < 0:
            raise ValueError("the time must be a number of seconds since the epoch")
        if instant > self._clock.now() + AHEAD:
            raise ValueError("the instant is in the future, which would revoke credentials that are not issued yet")
        return instant

    def _store_one(self, record: Revocation, seconds: float | None = None) -> Revocation:
        now = self._clock.now()
        stamped = replace(record, created=now, expires=None if seconds is None else now + seconds)
        self._store.put(SPACE, stamped.key, dump_revocation(stamped), seconds=seconds)
        # So that this process applies its own change at once.
        self._snapshot.invalidate()
        return stamped


def _parsed(raw: bytes) -> Revocation:
    try:
        return parse_revocation(raw)
    except ValueError as error:
        raise _damaged(error) from None


def _printable(value: str) -> str:
    if not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise ValueError(f"issuers and ids have 1 to {_LONGEST} printable characters")
    return value


def _principal(value: str) -> str:
    if not {":", "#"} & set(_printable(value)):
        raise ValueError(
            f"{value!r} is not a principal, such as https://issuer.example#subject or api_key:ID in the request log"
        )
    return value


def _damaged(fault: object) -> DependencyUnavailable:
    return DependencyUnavailable(f"the revocations in the store are damaged: {fault}", headers=[("Retry-After", "60")])
