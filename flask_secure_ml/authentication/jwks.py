"""The public keys of an issuer behind an address, with a cache: when it fetches, and what it does when it cannot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ..exchange import Clock
from .fetch import TIMEOUT, FetchError, fetch
from .key_set import KeySetError, PublishedKeys, VerificationKey, VerificationKeys, parse_key_set, usable

log = logging.getLogger(__name__)

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
    :param get: fetches the document; raises :class:`~flask_secure_ml.authentication.fetch.FetchError`.
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
