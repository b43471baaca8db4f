"""The public keys that an issuer publishes, cached, and the metadata that name their URL."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from ...fetch import TIMEOUT, FetchError, Response, require_ok
from ...principal import Clock
from ...refresh import JITTER, Attempt, Refreshed, process_lock
from ...strictjson import StrictJSONError, loads
from ..throttle import UNLIMITED, Calls
from .key_set import KeySetError, PublishedKeys, VerificationKey, VerificationKeys, no_usable_keys, parse_key_set

LAST_GOOD = 86_400
"""Seconds for which the last good key set is used while its server is down."""

CURRENT = 1.0
"""Seconds for which a fetched set is as current as it gets, so that an unknown ``kid`` causes no other fetch."""

_READS = 3
"""Discovery takes up to three requests: two URLs for the metadata, then the key set."""

Get = Callable[[str, Attempt], bytes]
"""Returns the document at a URL within the time of an attempt; raises :class:`~flask_secure_ml.fetch.FetchError`."""


class HttpKeys(PublishedKeys):
    """Keys at a ``jwks_uri``, fetched when they are needed, and cached.

    :param uri: ``https:``, or ``http:`` on loopback.
    :param algorithms: the algorithms that the issuer may sign with.
    :param max_age: seconds after which the set is fetched again.
    :param cooldown: the fewest seconds between two fetches caused by an unknown ``kid``, or after a failure. The first
        unknown ``kid`` after a regular fetch need not wait, so that a key that was just rotated is found at once.
    :param get: fetches the document.
    """

    def __init__(
        self,
        uri: str,
        algorithms: Sequence[str],
        clock: Clock,
        *,
        max_age: float = 300,
        cooldown: float = 60,
        get: Get,
    ) -> None:
        self._uri = uri
        self._algorithms = tuple(algorithms)
        self._cooldown = cooldown
        self._get = get
        self._clock = clock
        self._lock = process_lock()
        self._fetched = -math.inf
        # When an unknown kid caused a fetch.
        self._caused = -math.inf
        promised = max_age + 2 * TIMEOUT
        self._keys: Refreshed[VerificationKeys] = Refreshed(
            self._fetch,
            clock,
            name=f"the keys at {uri}",
            fresh=max_age,
            timeout=TIMEOUT,
            promised=promised,
            keep=max(LAST_GOOD, promised),
            # Never shorter than the cooldown.
            pause=cooldown / (1 - JITTER),
            total=_READS * TIMEOUT,
            errors=(FetchError, KeySetError),
            unavailable=lambda _: no_usable_keys(uri, cooldown),
        )

    def find(self, kid: str | None, algorithm: str, calls: Calls = UNLIMITED) -> VerificationKey | None:
        """Return the key, or None when the issuer has none with this name for this algorithm.

        :param calls: decides whether an unknown ``kid`` may cause a fetch.
        :raises DependencyUnavailable: no set could be fetched in the last 24 hours, or it has no usable key.
        """
        keys = self._usable(self._keys.get())
        if not keys.has(kid) and self._is_due() and calls.may_fetch():
            keys = self._usable(self._keys.get(max_age=0 if self._claim() else None))
        return keys.find(kid, algorithm)

    def _is_due(self) -> bool:
        """Return True if an unknown ``kid`` may cause a fetch; a clock that was set back allows it too."""
        now = self._clock.monotonic()
        return not (0 <= now - self._caused < self._cooldown or 0 <= now - self._fetched < CURRENT)

    def _claim(self) -> bool:
        """Return True to one caller of those that find the cooldown over."""
        with self._lock.get():
            due = self._is_due()
            if due:
                self._caused = self._clock.monotonic()
            return due

    def _usable(self, keys: VerificationKeys) -> VerificationKeys:
        if not keys:
            raise no_usable_keys(self._uri, self._cooldown)
        return keys

    def _fetch(self, _: VerificationKeys | None, attempt: Attempt) -> VerificationKeys:
        raw = self._get(self._uri, attempt)
        self._fetched = self._clock.monotonic()
        return parse_key_set(raw, self._algorithms)


class Request(Protocol):
    """Sends a GET request to a URL."""

    def __call__(self, uri: str, *, timeout: float) -> Response:
        """Return the response.

        :raises FetchError: there is none in time.
        """


class Discovery:
    """Fetches the key set that the metadata of an issuer name.

    Both are fetched again whenever the key set is due, so a moved key set is found as soon as a changed one.

    :param issuer: exactly as configured; metadata that name another are not used (RFC 8414 section 3.3).
    :param request: sends a GET request.
    :param clear_text: ``http:`` is allowed for the key set too; the issuer is on loopback then.
    :raises ValueError: the issuer has a query, so no URL is defined for its metadata (RFC 8414 section 2).
    """

    def __init__(self, issuer: str, request: Request, *, clear_text: bool = False) -> None:
        if "?" in issuer:
            raise ValueError("an issuer with a query cannot be discovered (RFC 8414 section 2)")
        self._issuer = issuer
        self._request = request
        self._schemes = ("https", "http") if clear_text else ("https",)

    def key_set(self, _uri: str, attempt: Attempt) -> bytes:
        """Return the key set, unparsed.

        :raises FetchError: the metadata or the key set cannot be fetched, or the metadata cannot be used.
        """
        return self._fetched(self._jwks_uri(attempt), attempt).body

    def _jwks_uri(self, attempt: Attempt) -> str:
        fault: FetchError | None = None
        for uri in metadata_uris(self._issuer):
            try:
                return self._checked(self._fetched(uri, attempt))
            except FetchError as error:
                # The fault at the standard URL says more than that at the second one.
                fault = fault or error
            finally:
                attempt.read_on()
        raise fault or FetchError("there are no metadata")

    def _fetched(self, uri: str, attempt: Attempt) -> Response:
        return require_ok(self._request(uri, timeout=attempt.remaining()))

    def _checked(self, response: Response) -> str:
        if response.media_type != "application/json":
            raise FetchError("the metadata are not application/json")
        try:
            metadata: Any = loads(response.body)
        except StrictJSONError:
            raise FetchError("the metadata are not strict JSON") from None
        if not isinstance(metadata, dict) or metadata.get("issuer") != self._issuer:
            raise FetchError("the metadata are not those of the configured issuer")
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str) or not _is_usable(uri, self._schemes):
            raise FetchError("the metadata have no usable jwks_uri")
        return uri


def metadata_uris(issuer: str) -> Iterator[str]:
    """Yield the URLs of an issuer's metadata: RFC 8414 section 3.1, then OpenID Connect Discovery section 4."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    yield f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}"
    yield f"{parts.scheme}://{parts.netloc}{path}/.well-known/openid-configuration"


def _is_usable(uri: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.scheme in schemes and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        return False
