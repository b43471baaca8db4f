"""The metadata of an authorization server (RFC 8414), read for one thing: where its keys are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from ..strictjson import StrictJSONError, loads
from .fetch import FetchError, Reply, good

Ask = Callable[[str], Reply]


class Discovery:
    """Fetches the key set that the metadata of an issuer name.

    Both are read again whenever the key set is due, so a moved key set is found as soon as a changed one.

    :param issuer: exactly as configured; metadata that name another are not used (RFC 8414 section 3.3).
    :param ask: GETs a document; raises :class:`~flask_secure_ml.authentication.fetch.FetchError`.
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
