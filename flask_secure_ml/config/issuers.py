"""The check of ``SECURE_ML_TOKEN_ISSUERS``: whose access tokens are accepted, and how they are verified."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from ..secrets import SecretRing, client_secret_ring, secret_ring

ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
HMAC_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The shortest secret of each HMAC algorithm in bytes: that of its digest (RFC 7518 section 3.2)."""

ALGORITHMS = ASYMMETRIC | HMAC_BYTES.keys()
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
RELAXATIONS = frozenset({"typ", "jti", "client_id", "sub"})
KEY_SOURCES = ("jwks_uri", "jwks_file", "jwks", "secret", "discover")
MAX_AGE = 86_400
LONGEST_AGE = 30 * 86_400
"""The most that ``max_age`` can be, in seconds; the revocation of a token is remembered for longer."""

_EXAMPLE = "an object with issuer, audience, algorithms and one of " + ", ".join((*KEY_SOURCES, "introspection_uri"))


@dataclass(frozen=True)
class IssuerConfig:
    """One authorization server: who it is, for whom its tokens are, and how they are verified.

    :param issuer: the exact ``iss``.
    :param audience: must be in ``aud``.
    :param algorithms: what its tokens may be signed with; empty where it only introspects.
    :param jwks_uri: where its public keys are.
    :param jwks_file: a file with its public keys.
    :param jwks: its public keys themselves, a JWK Set.
    :param secret: the HMAC secrets, newest first.
    :param discover: read ``jwks_uri`` from the issuer's metadata (RFC 8414).
    :param introspection_uri: where opaque tokens are introspected (RFC 7662).
    :param client_id: who this app is at the introspection endpoint.
    :param client_secret: and its secret there, newest first.
    :param omits: which of ``typ``, ``jti`` and ``client_id`` its tokens may lack; with ``sub``, introspection may leave
        it out, and the client's id stands for it.
    :param max_age: the most seconds since ``iat``.
    :param private_network: its addresses may be private or loopback ones.
    :param insecure_http: its addresses may be ``http:`` on loopback.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ()
    jwks_uri: str | None = None
    jwks_file: str | None = None
    jwks: Mapping[str, Any] | None = None
    secret: SecretRing | None = None
    discover: bool = False
    introspection_uri: str | None = None
    client_id: str | None = None
    client_secret: SecretRing | None = None
    omits: frozenset[str] = frozenset()
    max_age: int = MAX_AGE
    private_network: bool = False
    insecure_http: bool = False

    @property
    def key_sources(self) -> tuple[str, ...]:
        """The names of the members that say where keys are."""
        return tuple(name for name in KEY_SOURCES if getattr(self, name))


def issuers(value: Any) -> tuple[IssuerConfig, ...]:
    """Accept a list of issuer objects; every issuer once, and at most one that introspects.

    :raises ValueError: names the entry by its number, and never a secret.
    """
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"must be a list, each entry {_EXAMPLE}")
    found = tuple(_issuer(f"[{number}]", entry) for number, entry in enumerate(value))
    if len({each.issuer for each in found}) < len(found):
        raise ValueError("names an issuer twice")
    if sum(each.introspection_uri is not None for each in found) > 1:
        raise ValueError("has two issuers with introspection_uri, and an opaque token does not say whose it is")
    return found


def _issuer(where: str, entry: Any) -> IssuerConfig:
    known = {each.name for each in fields(IssuerConfig)}
    if not isinstance(entry, Mapping) or not {"issuer", "audience"} <= entry.keys() <= known:
        raise ValueError(f"{where} must be {_EXAMPLE}")
    try:
        found = IssuerConfig(**{name: _MEMBERS[name](member) for name, member in entry.items()})
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None
    for problem in _contradictions(found):
        raise ValueError(f"{where} {problem}")
    return found


def _contradictions(found: IssuerConfig) -> Iterator[str]:
    if "#" in found.issuer:
        yield "issuer must not have a fragment (RFC 8414 section 2)"
    if len(found.key_sources) > 1 or not (found.key_sources or found.introspection_uri):
        yield f"needs exactly one of {', '.join(KEY_SOURCES)}, or introspection_uri"
    if bool(found.algorithms) != bool(found.key_sources):
        yield "needs algorithms for its keys, and only for keys"
    if found.key_sources and set(found.algorithms) & (ASYMMETRIC if found.secret else HMAC_BYTES.keys()):
        yield "algorithms and keys do not fit: a secret verifies HMAC and nothing else, public keys never do"
    yield from _secret_lengths(found)
    yield from _introspection(found)
    yield from _addresses(found)


def _secret_lengths(found: IssuerConfig) -> Iterator[str]:
    needed = max((HMAC_BYTES.get(name, 0) for name in found.algorithms), default=0)
    if found.secret is not None and any(len(value) < needed for value in found.secret.check()):
        yield f"secret must hold at least {needed} bytes for these algorithms (RFC 7518 section 3.2)"


def _introspection(found: IssuerConfig) -> Iterator[str]:
    members = (found.introspection_uri, found.client_id, found.client_secret)
    if any(member is not None for member in members) and None in members:
        yield "introspection needs introspection_uri, client_id and client_secret together"


def _addresses(found: IssuerConfig) -> Iterator[str]:
    named = {"jwks_uri": found.jwks_uri, "introspection_uri": found.introspection_uri}
    if found.discover:
        named["issuer (with discover)"] = found.issuer
    for name, address in named.items():
        if address is not None and not _allowed(address, insecure=found.insecure_http):
            yield f"{name} must begin with https: (or be http: on loopback with insecure_http)"


def _allowed(address: str, *, insecure: bool) -> bool:
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        return False
    return usable and (parts.scheme == "https" or (insecure and parts.scheme == "http" and parts.hostname in LOOPBACK))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("has a member that is not a text")
    return value


def _true_or_false(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"has a switch that is neither true nor false but {value!r}")
    return value


def _names(value: Any, known: Collection[str], what: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{what} must be a list")
    if not value or not set(value) <= set(known):
        raise ValueError(f"{what} must be a list of {', '.join(sorted(known))}")
    return tuple(value)


def _key_set(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("keys"), (list, tuple)):
        raise ValueError("jwks must be a JWK Set: an object with the list keys")
    return value


def _seconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LONGEST_AGE:
        raise ValueError(f"max_age must be a whole number of seconds from 1 to {LONGEST_AGE}")
    return value


_MEMBERS: Mapping[str, Any] = {
    "issuer": _text,
    "audience": _text,
    "algorithms": lambda value: _names(value, ALGORITHMS, "algorithms"),
    "jwks_uri": _text,
    "jwks_file": _text,
    "jwks": _key_set,
    "secret": secret_ring,
    "discover": _true_or_false,
    "introspection_uri": _text,
    "client_id": _text,
    "client_secret": client_secret_ring,
    "omits": lambda value: frozenset(_names(value, RELAXATIONS, "omits")),
    "max_age": _seconds,
    "private_network": _true_or_false,
    "insecure_http": _true_or_false,
}
