"""RFC 9068 access tokens: one way from the text of a token to what it proves, and it checks everything."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from ...config import Settings
from ...config.issuers import IssuerConfig
from ...errors import ConfigError, NotAuthenticated
from ...principal import Clock, Principal
from ...strictjson import loads
from .authenticator import TokenCache, VerifiedToken
from .claims import check_claims, client_of, read_only, roles_of, until
from .key_set import MAX_KID, VerificationKey
from .sources import KeySource, key_source

MAX_TOKEN = 8192
"""The longest token in characters; servers cap a header line at about the same."""

_HEADERS = 256
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_DOTS = frozenset({2, 4})
_TYPES = frozenset({"at+jwt", "application/at+jwt"})
_UNTYPED = frozenset({"", "jwt", "application/jwt"})
# Members that change how a token is processed or bring a key of their own (RFC 8725bis sections 3.4, 3.10).
_REFUSED = frozenset({"crit", "b64", "zip", "cty", "enc", "jwk", "jku", "x5u", "x5c"})


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer and where its keys are."""

    config: IssuerConfig
    keys: KeySource


@dataclass(frozen=True, slots=True)
class _Header:
    """What a sound header says."""

    algorithm: str
    kid: str | None
    typed: bool


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A token that was verified, and what that stood on."""

    verified: VerifiedToken
    begins: float
    issuer: TrustedIssuer
    header: _Header
    key: VerificationKey


class JwtVerifier:
    """Verifies signed access tokens of the configured issuers.

    A token that was verified is remembered by its digest. Its times and whether its key is still one of its issuer's
    are looked at again each time; its binding and its revocation are for others to check, for known tokens too.

    :param issuers: whose tokens are accepted; each name once.
    :param clock: tells when a token has expired.
    :param leeway: seconds by which the clocks of issuer and server may differ.
    :param cache_size: how many tokens are remembered; 0 for none.
    """

    def __init__(
        self, issuers: Mapping[str, TrustedIssuer], clock: Clock, leeway: float = 30, cache_size: int = 10_000
    ) -> None:
        self._issuers = dict(issuers)
        self._clock = clock
        self._leeway = leeway
        self._known: TokenCache[_Remembered] = TokenCache(cache_size)
        # Clients of one issuer send the same header with every token.
        self._header = lru_cache(_HEADERS)(_header)

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock) -> JwtVerifier:
        """Return the verifier for ``SECURE_ML_TOKEN_ISSUERS``; nothing is fetched before the first token.

        :raises ConfigError: keys that are configured in place or in a file are not sound; names every issuer.
        """
        trusted, problems = {}, []
        for each in settings.token_issuers:
            try:
                if each.key_sources:
                    trusted[each.issuer] = TrustedIssuer(each, key_source(each, settings, clock))
            except ValueError as error:
                problems.append(f"SECURE_ML_TOKEN_ISSUERS: the keys of {each.issuer}: {error}")
        if problems:
            raise ConfigError(problems)
        return cls(trusted, clock, settings.token_leeway, settings.token_cache_size)

    def accepts(self, token: str) -> bool:
        """Tell whether a token has the three parts of a signed one, or the five of an encrypted one (RFC 7516)."""
        return token.count(".") in _DOTS

    def verify(self, token: str) -> VerifiedToken:
        """Return what a token proves whose form, signature and claims are all right (RFC 9068 section 4).

        :raises NotAuthenticated: anything else.
        :raises DependencyUnavailable: the keys of its issuer are not known.
        """
        if len(token) > MAX_TOKEN:
            _refuse(f"the token has more than {MAX_TOKEN} characters")
        known = self._known.get(token)
        if known is not None:
            if self._still_holds(known):
                return known.verified
            self._known.forget(token)
        fresh = self._verify(token)
        # Within the leeway after its end it is good, and verified every time.
        if self._clock.now() < fresh.verified.expires:
            self._known.put(token, fresh)
        return fresh.verified

    def _still_holds(self, known: _Remembered) -> bool:
        if not known.begins <= self._clock.now() < known.verified.expires:
            return False
        return known.key in known.issuer.keys.candidates(known.header.kid, known.header.algorithm)

    def _verify(self, token: str) -> _Remembered:
        """Verify the signature and the claims; nothing else makes a token a verified one."""
        parts = _COMPACT.fullmatch(token) or _refuse("the token is not a signed one in compact form")
        header = self._header(parts[1])
        claims = _object(_decoded(parts[2], "payload"), "payload")
        issuer = self._issuer(claims.get("iss"))
        _check_header(header, issuer.config)
        key = _signing_key(token, _decoded(parts[3], "signature"), header, issuer)
        now, leeway = self._clock.now(), self._leeway
        scopes = check_claims(claims, issuer.config, typed=header.typed, now=now, leeway=leeway)
        verified = VerifiedToken(
            _principal(claims, issuer.config, scopes), until(claims, issuer.config.max_age), _confirmation(claims)
        )
        begins = max(claims["iat"], claims.get("nbf", 0)) - leeway
        return _Remembered(verified, begins, issuer, header, key)

    def _issuer(self, name: Any) -> TrustedIssuer:
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        return issuer or _refuse("the issuer is missing or not a configured one")


def _decoded(part: str, what: str) -> bytes:
    try:
        value = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        _refuse(f"the {what} is not base64url")
    # Other last characters would decode to the same bytes, so that one token had several texts.
    if base64.urlsafe_b64encode(value).rstrip(b"=") != part.encode():
        _refuse(f"the {what} is not written in the one way that base64url has for it")
    return value


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        value = loads(raw)
    except ValueError as error:
        _refuse(f"the {what} is not strict JSON: {error}")
    return value if isinstance(value, dict) else _refuse(f"the {what} is not a JSON object")


def _header(part: str) -> _Header:
    """Return what a header says that is sound for any issuer."""
    header = _object(_decoded(part, "header"), "header")
    kind, algorithm, kid = header.get("typ", ""), header.get("alg"), header.get("kid")
    if not isinstance(kind, str) or kind.lower() not in _TYPES | _UNTYPED:
        _refuse("typ is that of another kind of token")
    if refused := sorted(_REFUSED & header.keys()):
        _refuse(f"the header has {', '.join(refused)}")
    if "kid" in header and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID):
        _refuse(f"kid is not a text of 1 to {MAX_KID} characters")
    if not isinstance(algorithm, str):
        _refuse("alg is missing or not a text")
    return _Header(algorithm, kid, kind.lower() in _TYPES)


def _check_header(header: _Header, issuer: IssuerConfig) -> None:
    if not header.typed and "typ" not in issuer.omits:
        _refuse("typ is not at+jwt")
    if header.algorithm not in issuer.algorithms:
        _refuse("alg is not one that the issuer may use")


def _signing_key(token: str, signature: bytes, header: _Header, issuer: TrustedIssuer) -> VerificationKey:
    """Return the key that made the signature."""
    signed = token.rpartition(".")[0].encode()
    candidates = issuer.keys.candidates(header.kid, header.algorithm)
    if not candidates:
        _refuse("the issuer has no such key for this alg")
    found = next((key for key in candidates if _signs(key, signed, signature)), None)
    return found or _refuse("the signature does not verify")


def _signs(key: VerificationKey, signed: bytes, signature: bytes) -> bool:
    # The algorithm is that of the key, never what a token says.
    try:
        return JWSRegistry.algorithms[key.algorithm].verify(signed, signature, key.key) is True
    except (JoseError, ValueError):
        return False


def _principal(claims: Mapping[str, Any], issuer: IssuerConfig, scopes: frozenset[str]) -> Principal:
    return Principal(
        "jwt",
        claims["sub"],
        issuer.issuer,
        scopes,
        client_id=client_of(claims),
        claims=read_only(claims),
        roles=roles_of(claims),
        token_id=claims.get("jti", ""),
        issued=float(claims["iat"]),
    )


def _confirmation(claims: Mapping[str, Any]) -> Any:
    """Return ``cnf`` as it is; null binds to nothing, and must not look like a token that is not bound."""
    return read_only(claims["cnf"]) or {} if "cnf" in claims else None


def _refuse(reason: str) -> NoReturn:
    raise NotAuthenticated(reason)
