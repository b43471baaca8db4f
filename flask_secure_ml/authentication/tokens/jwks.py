"""The public keys of an issuer behind an address, with a cache: when it fetches, and what it does when it cannot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...fetch import TIMEOUT, FetchError, Reply, fetch, good
from ...principal import Clock
from ...strictjson import StrictJSONError, loads
from .key_set import KeySetError, PublishedKeys, VerificationKey, VerificationKeys, parse_key_set, usable

log: logging.Logger = logging.getLogger(__name__)

LAST_GOOD = 86_400
"""Seconds for which the last good set serves while its server is down."""


class HttpKeys(PublishedKeys):
    """Keys behind a ``jwks_uri``, fetched when they are needed and kept.

    One thread of the process fetches at a time. The others go on with the set there is; only when there is none
    do they wait. After a fork every process fetches for itself: the lock is made with the object and is held
    during a fetch only, so fork before the first request, as gunicorn does.

    :param uri: ``https:``, or ``http:`` on loopback.
    :param algorithms: what the issuer may sign with.
    :param max_age: seconds after which the set is fetched again.
    :param cooldown: the fewest seconds between two fetches caused by an unknown ``kid`` or after a failure.
    :param get: fetches the document; raises :class:`~flask_secure_ml.fetch.FetchError`.
    """

    def __init__(
        self,
        uri: str,
        algorithms: Sequence[str],
        clock: Clock,
        *,
        max_age: float = 300,
        cooldown: float = 60,
        get: Callable[[str], bytes] = fetch,
    ) -> None:
        self._uri = uri
        self._algorithms = tuple(algorithms)
        self._clock = clock
        self._max_age = max_age
        self._cooldown = cooldown
        self._get = get
        self._lock = threading.Lock()
        self._keys: VerificationKeys | None = None
        self._fetched = self._tried = float("-inf")
        self._due = float("-inf")

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key, or None when the issuer has none with this name for this algorithm.

        :raises DependencyUnavailable: no set could be fetched in the last 24 hours, or it has no usable key.
        """
        self._refresh(lambda now: now >= self._due)
        keys = self._current()
        if not keys.has(kid):
            self._refresh(lambda now: now >= self._tried + self._cooldown)
            keys = self._current()
        return keys.find(kid, algorithm)

    def _current(self) -> VerificationKeys:
        return usable(None if self._too_old() else self._keys, self._uri, self._cooldown)

    def _too_old(self) -> bool:
        return self._clock.monotonic() >= self._fetched + LAST_GOOD

    def _refresh(self, wanted: Callable[[float], bool]) -> None:
        """Fetch if it is still wanted once this thread's turn has come."""
        if not wanted(self._clock.monotonic()):
            return
        if not self._lock.acquire(timeout=2 * TIMEOUT if self._too_old() else 0):
            return
        try:
            if wanted(self._clock.monotonic()):
                self._fetch()
        finally:
            self._lock.release()

    def _fetch(self) -> None:
        now, wait = self._clock.monotonic(), self._cooldown
        try:
            self._keys = parse_key_set(self._get(self._uri), self._algorithms)
            self._fetched, wait = now, self._max_age
        except (FetchError, KeySetError) as error:
            log.warning("the key set %s cannot be used: %s", self._uri, error)
        finally:
            # Last: until then a thread that has no set yet waits for this one instead of giving up.
            self._tried, self._due = now, now + wait


Ask = Callable[[str], Reply]


class Discovery:
    """Fetches the key set that the metadata of an issuer name.

    Both are read again whenever the key set is due, so a moved key set is found as soon as a changed one.

    :param issuer: exactly as configured; metadata that name another are not used (RFC 8414 section 3.3).
    :param ask: GETs a document; raises :class:`~flask_secure_ml.fetch.FetchError`.
    :param clear_text: ``http:`` is allowed for the key set too; the issuer is on loopback then.
    :raises ValueError: the issuer has a query, so no place is defined for its metadata (RFC 8414 section 2).
    """

    def __init__(self, issuer: str, ask: Ask, *, clear_text: bool = False) -> None:
        if "?" in issuer:
            raise ValueError("an issuer with a query cannot be discovered (RFC 8414 section 2)")
        self._issuer = issuer
        self._ask = ask
        self._schemes = ("https", "http") if clear_text else ("https",)

    def key_set(self, _uri: str) -> bytes:
        """Return the key set, unparsed.

        :raises FetchError: no metadata, or none that can be used, or no key set.
        """
        return good(self._ask(self._jwks_uri())).body

    def _jwks_uri(self) -> str:
        fault: FetchError | None = None
        for place in metadata_places(self._issuer):
            try:
                return self._checked(good(self._ask(place)))
            except FetchError as error:
                # The first fault is that of the standard place, and says more.
                fault = fault or error
        raise fault or FetchError("no metadata")

    def _checked(self, reply: Reply) -> str:
        if reply.media_type != "application/json":
            raise FetchError("the metadata are not application/json")
        try:
            metadata: Any = loads(reply.body)
        except StrictJSONError:
            raise FetchError("the metadata are not strict JSON") from None
        if not isinstance(metadata, dict) or metadata.get("issuer") != self._issuer:
            raise FetchError("the metadata are not those of the configured issuer")
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str) or not _usable(uri, self._schemes):
            raise FetchError("the metadata have no jwks_uri that can be used")
        return uri


def metadata_places(issuer: str) -> Iterator[str]:
    """Yield where the metadata of an issuer can be: RFC 8414 section 3.1, then OpenID Connect Discovery section 4."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    yield f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"
    yield f"{parts.scheme}://{parts.netloc}{path}/.well-known/openid-configuration"


def _usable(uri: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.scheme in schemes and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        return False
