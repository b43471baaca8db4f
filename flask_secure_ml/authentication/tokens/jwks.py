"""The published keys of an issuer, cached, and the metadata with their URL."""

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
"""Seconds for which the last valid key set is used while its server is down."""

CURRENT = 1.0
"""Seconds after a fetch during which an unknown ``kid`` does not cause another one."""

_READS = 3
"""Discovery needs up to three requests: two URLs for the metadata, then the key set."""

_SHOWN = 200
"""Maximum length of an unexpected issuer in a log message."""

Get = Callable[[str, Attempt], bytes]
"""Returns the document at a URL within the time of an attempt; raises :class:`~flask_secure_ml.fetch.FetchError`."""


class HttpKeys(PublishedKeys):
    """Keys at a ``jwks_uri``, fetched on demand and cached.

    :param uri: ``https:``, or ``http:`` on loopback.
    :param algorithms: the algorithms that the issuer may sign with.
    :param max_age: seconds after which the set is fetched again.
    :param cooldown: the minimum of seconds between two fetches caused by an unknown ``kid``, or after a failure. The
        first unknown ``kid`` after a regular fetch need not wait, so that a rotated key is found at once.
    :param get: fetches the document.
    :param refreshed: called after each fetch, with True if the set can be used.
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
        refreshed: Callable[[bool], object] = lambda _: None,
    ) -> None:
        self._uri = uri
        self._algorithms = tuple(algorithms)
        self._cooldown = cooldown
        self._get = get
        self._refreshed = refreshed
        self._clock = clock
        self._lock = process_lock()
        self._fetched = -math.inf
        self._raw = b""
        # When an unknown kid last caused a fetch.
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
        """Return the key, or None if the issuer has none with this ``kid`` for this algorithm.

        :param calls: decides whether an unknown ``kid`` may cause a fetch.
        :raises DependencyUnavailable: no set could be fetched in the last 24 hours, or it has no usable key.
        """
        keys = self._usable(self._keys.get())
        if not keys.has(kid) and self._is_due() and calls.may_fetch():
            keys = self._usable(self._keys.get(max_age=0 if self._claim() else None))
        return keys.find(kid, algorithm)

    def _is_due(self) -> bool:
        """Return True if an unknown ``kid`` may cause a fetch, or if the clock was set back."""
        now = self._clock.monotonic()
        return not (0 <= now - self._caused < self._cooldown or 0 <= now - self._fetched < CURRENT)

    def _claim(self) -> bool:
        """Return True to only one of the callers after the cooldown has ended."""
        with self._lock.get():
            due = self._is_due()
            if due:
                self._caused = self._clock.monotonic()
            return due

    def _usable(self, keys: VerificationKeys) -> VerificationKeys:
        if not keys:
            raise no_usable_keys(self._uri, self._cooldown)
        return keys

    def _fetch(self, known: VerificationKeys | None, attempt: Attempt) -> VerificationKeys:
        try:
            raw = self._get(self._uri, attempt)
            self._fetched = self._clock.monotonic()
            # Keys that are ignored are logged once for each set, not for each fetch.
            keys = known if known is not None and raw == self._raw else parse_key_set(raw, self._algorithms)
            self._raw = raw
        except (FetchError, KeySetError):
            self._refreshed(False)
            raise
        self._refreshed(bool(keys))
        return keys


class Request(Protocol):
    """Sends a GET request to a URL."""

    def __call__(self, uri: str, *, timeout: float) -> Response:
        """Return the response.

        :raises FetchError: there is no response in time.
        """


class Discovery:
    """Fetches the key set whose URL is in the metadata of an issuer.

    The metadata are fetched again with each key set, so a new URL of the key set is found as soon as a new key.

    :param issuer: exactly as configured; metadata of another issuer are rejected (RFC 8414 section 3.3).
    :param request: sends a GET request.
    :param clear_text: allow ``http:`` for the key set too, for an issuer on loopback.
    :raises ValueError: the issuer has a query, so its metadata have no URL (RFC 8414 section 2).
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
                # The error at the standard URL is more useful than that at the second one.
                fault = fault or error
            finally:
                attempt.read_on()
        raise fault or FetchError("there is no metadata")

    def _fetched(self, uri: str, attempt: Attempt) -> Response:
        return require_ok(self._request(uri, timeout=attempt.remaining()))

    def _checked(self, response: Response) -> str:
        if response.media_type != "application/json":
            raise FetchError("the metadata is not application/json")
        try:
            metadata: Any = loads(response.body)
        except StrictJSONError:
            raise FetchError("the metadata is not strict JSON") from None
        issuer = metadata.get("issuer") if isinstance(metadata, dict) else None
        if issuer != self._issuer:
            named = f"names the issuer {issuer[:_SHOWN]!a}" if isinstance(issuer, str) else "names no issuer"
            raise FetchError(f"the metadata does not match the configured issuer: it {named}")
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str) or not _is_usable(uri, self._schemes):
            raise FetchError("the metadata has no usable jwks_uri")
        return uri


def metadata_uris(issuer: str) -> Iterator[str]:
    """Yield the URLs of an issuer's metadata.

    The first is that of RFC 8414 section 3.1, the second that of OpenID Connect Discovery section 4.
    """
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
