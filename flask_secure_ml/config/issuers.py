"""Whose access tokens are accepted, and how they are verified (``SECURE_ML_TOKEN_ISSUERS``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..policy.fields import Boolean, Choices, Integer, ListOf, StrictField, String
from ..policy.schema import Check, Problem, option
from ..secrets import SecretRing, client_secret_ring, secret_ring
from .fields import SecretReference

ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
HMAC_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The shortest secret of each HMAC algorithm in bytes: that of its digest (RFC 7518 section 3.2)."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
KEY_SOURCES = ("jwks_uri", "jwks_file", "jwks", "secret", "discover")
MAX_AGE = 86_400
LONGEST_AGE = 30 * 86_400
"""The most that ``max_age`` can be, in seconds; the revocation of a token is kept for longer."""


class KeySet(StrictField):
    """A JWK Set (RFC 7517)."""

    def __init__(self) -> None:
        super().__init__('a JWK Set: an object with the list "keys"')

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not isinstance(value.get("keys"), (list, tuple)):
            raise self.wrong(value, secret=True)
        return value


class Relaxations(Choices):
    """Which members a token may lack."""

    def joined(self, found: list[Any]) -> frozenset[str]:
        """Return the members."""
        return frozenset(found)


def check_issuer(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if the issuer is not an identifier (RFC 8414 section 2)."""
    if "#" in found.issuer:
        yield ("issuer",), "must not have a fragment (RFC 8414 section 2)"


def check_sources(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if there are several sources of keys, or nothing to verify a token with."""
    if len(found.key_sources) > 1 or not (found.key_sources or found.introspection_uri):
        named = f", not {' and '.join(found.key_sources)}" if found.key_sources else ""
        yield (), f"needs exactly one of {', '.join(KEY_SOURCES)}, or introspection_uri{named}"


def check_algorithms(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if algorithms and keys do not fit."""
    if found.key_sources and not found.algorithms:
        yield ("algorithms",), 'is missing; name what its tokens are signed with, such as ["RS256"]'
    if found.algorithms and not found.key_sources and found.introspection_uri:
        yield ("algorithms",), "is only for keys, and this issuer only introspects"
    if found.key_sources and set(found.algorithms) & (ASYMMETRIC if found.secret else HMAC_BYTES.keys()):
        wanted = "a secret verifies HMAC and nothing else" if found.secret else "public keys never verify HMAC"
        yield ("algorithms",), f"does not fit {found.key_sources[0]}: {wanted}"


def check_secret_length(found: IssuerConfig) -> Iterator[Problem]:
    """Yield a problem if a secret is shorter than the digest of its algorithm."""
    needed = max((HMAC_BYTES.get(name, 0) for name in found.algorithms), default=0)
    if found.secret is not None and any(len(value) < needed for value in found.secret.check()):
        yield ("secret",), f"must hold at least {needed} bytes for these algorithms (RFC 7518 section 3.2)"


def check_introspection(found: IssuerConfig) -> Iterator[Problem]:
    """Yield each option of introspection that the others lack."""
    options = {name: getattr(found, name) for name in ("introspection_uri", "client_id", "client_secret")}
    if any(value is not None for value in options.values()):
        for name, value in options.items():
            if value is None:
                others = " and ".join(other for other in options if other != name)
                yield (name,), f"is missing; introspection needs it together with {others}"


def _check_url(name: str) -> Check:
    def check(found: IssuerConfig) -> Iterator[Problem]:
        url = getattr(found, name)
        if url is not None and (name != "issuer" or found.discover) and not _allowed(url, found.insecure_http):
            why = ", because its metadata are fetched from there (discover)" if name == "issuer" else ""
            yield (name,), f"must begin with https:{why} (or be http: on loopback with insecure_http)"

    return check


def _allowed(url: str, insecure: bool) -> bool:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        return False
    return usable and (parts.scheme == "https" or (insecure and parts.scheme == "http" and parts.hostname in LOOPBACK))


@dataclass(frozen=True)
class IssuerConfig:
    """One authorization server: who it is, for whom its tokens are, and how they are verified."""

    cross_checks: ClassVar[tuple[Check, ...]] = (
        check_issuer,
        check_sources,
        check_algorithms,
        check_secret_length,
        check_introspection,
        _check_url("issuer"),
        _check_url("jwks_uri"),
        _check_url("introspection_uri"),
    )

    issuer: str = option(String(), help_text="The exact ``iss``.")
    audience: str = option(String(), help_text="What must be in ``aud``.")
    algorithms: tuple[str, ...] = option(
        Choices(*sorted(ASYMMETRIC), *HMAC_BYTES), (), "What its tokens are signed with; only where it has keys."
    )
    jwks_uri: str | None = option(String(), None, "The URL of its public keys.")
    jwks_file: str | None = option(String(), None, "A file with its public keys.")
    jwks: Mapping[str, Any] | None = option(KeySet(), None, "Its public keys themselves, a JWK Set.")
    secret: SecretRing | None = option(
        SecretReference(secret_ring), None, "A reference to the HMAC secret, or a list of them, newest first."
    )
    discover: bool = option(Boolean(), False, "Read ``jwks_uri`` from the issuer's metadata (RFC 8414).")
    introspection_uri: str | None = option(String(), None, "The URL where opaque tokens are introspected (RFC 7662).")
    client_id: str | None = option(String(), None, "The name of this app at the introspection endpoint.")
    client_secret: SecretRing | None = option(
        SecretReference(client_secret_ring), None, "A reference to its secret there, or a list, newest first."
    )
    omits: frozenset[str] = option(
        Relaxations("typ", "jti", "client_id", "sub"),
        frozenset(),
        "What its tokens may lack; without ``sub``, which only introspection may leave out, the client's id is used.",
    )
    max_age: int = option(Integer(1, LONGEST_AGE, unit="seconds"), MAX_AGE, "The most seconds since ``iat``.")
    private_network: bool = option(Boolean(), False, "Its IP addresses may be private or loopback ones.")
    insecure_http: bool = option(Boolean(), False, "Its URLs may be ``http:`` on loopback.")

    @property
    def key_sources(self) -> tuple[str, ...]:
        """The names of the options that are sources of keys."""
        return tuple(name for name in KEY_SOURCES if getattr(self, name))


def _check_together(issuers: Mapping[int, IssuerConfig]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    introspecting: int | None = None
    for index, each in issuers.items():
        if seen.setdefault(each.issuer, index) != index:
            yield (index, "issuer"), f"is also that of entry {seen[each.issuer]}; name every issuer once"
        if each.introspection_uri is not None and introspecting is not None:
            why = "an opaque token does not name its issuer"
            yield (
                (index, "introspection_uri"),
                f"is already set for entry {introspecting}; only one issuer can introspect, because {why}",
            )
        elif each.introspection_uri is not None:
            introspecting = index


def issuers_field() -> ListOf:
    """Return the field of ``SECURE_ML_TOKEN_ISSUERS``."""
    return ListOf(IssuerConfig, _check_together)
