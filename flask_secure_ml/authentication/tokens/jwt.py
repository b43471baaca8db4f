"""The verifier of signed access tokens (RFC 9068): it checks header, signature and claims."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NoReturn

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from ...config import Settings
from ...config.issuer_fields import media_type
from ...config.issuers import MAX_TOKEN_BYTES, IssuerConfig
from ...errors import ConfigError, DependencyUnavailable, NotAuthenticated, UnusableCredential
from ...principal import Clock, Principal
from ..throttle import UNLIMITED, Calls
from .authenticator import TokenCache, VerifiedToken
from .claims import check_claims, end_of, read_only, sound
from .compact import decoded, json_object
from .identity import client_of, plan_of, roles_of, scopes_of, subject_of
from .key_set import MAX_KID, VerificationKey
from .sources import KeySource, Refreshes, key_source

_HEADERS = 256
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_DOTS = frozenset({2, 4})
_TYPED, _UNTYPED = "at+jwt", frozenset({"", "jwt"})
# Members that change how a token is processed, and an embedded key (RFC 8725bis sections 3.4, 3.10). Certificates and
# URLs of keys are ignored: this package never reads them.
_FORBIDDEN = frozenset({"crit", "b64", "zip", "cty", "enc", "jwk"})


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer and the source of its keys."""

    config: IssuerConfig
    keys: KeySource


@dataclass(frozen=True, slots=True)
class _Header:
    """The members of a valid header."""

    algorithm: str
    kid: str | None
    kind: str


@dataclass(frozen=True, slots=True)
class _Cached:
    """A verified token, and the facts on which its verification depended."""

    verified: VerifiedToken
    begins: float
    issuer: TrustedIssuer
    header: _Header
    key: VerificationKey


class JwtVerifier:
    """Verifies signed access tokens of the configured issuers.

    A verified token is cached by its digest. For each use of a cached token, its times are checked again, and that its
    issuer still publishes its key. Binding and revocation are not checked here.

    :param issuers: the accepted issuers by name.
    :param clock: decides whether a token has expired.
    :param leeway: seconds by which the clocks of issuer and server may differ.
    :param cache_size: the maximum number of cached tokens; 0 disables the cache.
    """

    def __init__(
        self, issuers: Mapping[str, TrustedIssuer], clock: Clock, leeway: float = 30, cache_size: int = 10_000
    ) -> None:
        self._issuers = dict(issuers)
        self._longest = max((each.config.max_token_bytes for each in issuers.values()), default=MAX_TOKEN_BYTES)
        self._clock = clock
        self._leeway = leeway
        self._cache: TokenCache[_Cached] = TokenCache(cache_size)
        # All tokens of an issuer have the same header.
        self._header = lru_cache(_HEADERS)(_header)
        # The issuer and the key of the last authentic token, which clients without such a token cannot choose.
        self._last: tuple[TrustedIssuer, VerificationKey] | None = None

    @classmethod
    def from_settings(
        cls, settings: Settings, clock: Clock, refreshed: Refreshes = lambda _issuer, _usable: None
    ) -> JwtVerifier:
        """Return the verifier for ``SECURE_ML_TOKEN_ISSUERS``; no key set is fetched before the first token.

        :param refreshed: called after each fetch of a key set.
        :raises ConfigError: keys in the configuration or in a file are invalid; it lists every such issuer.
        """
        trusted, problems = {}, []
        for each in settings.token_issuers:
            try:
                if each.key_sources:
                    trusted[each.issuer] = TrustedIssuer(each, key_source(each, settings, clock, refreshed))
            except ValueError as error:
                problems.append(f"SECURE_ML_TOKEN_ISSUERS: the keys of {each.issuer}: {error}")
        if problems:
            raise ConfigError(problems)
        return cls(trusted, clock, settings.token_leeway, settings.token_cache_size)

    def parts(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield each issuer, and a function that raises an error while its keys are not known.

        The function fetches the keys only if they are due, because it looks up no ``kid``.
        """
        for name, issuer in self._issuers.items():
            yield name, partial(issuer.keys.candidates, None, issuer.config.algorithms[0])

    def accepts(self, token: str) -> bool:
        """Return True if a token has the three parts of a JWS, or the five of a JWE (RFC 7516)."""
        return token.count(".") in _DOTS

    def verify(self, token: str, calls: Calls = UNLIMITED) -> VerifiedToken:
        """Verify header, signature and claims of a token (RFC 9068 section 4).

        :raises UnusableCredential: the signature is valid, but the claims are not.
        :raises NotAuthenticated: anything else.
        :raises DependencyUnavailable: the keys of its issuer are not known.
        """
        _check_length(token, self._longest)
        cached = self._cache.get(token)
        if cached is not None:
            if self._is_valid(cached, calls):
                return cached.verified
            self._cache.evict(token)
        fresh = self._verify(token, calls)
        # A token in its leeway after expiry is valid, but not cached.
        if self._clock.now() < fresh.verified.expires:
            self._cache.put(token, fresh)
        return fresh.verified

    def _is_valid(self, cached: _Cached, calls: Calls) -> bool:
        if not cached.begins <= self._clock.now() < cached.verified.expires:
            return False
        return cached.key in cached.issuer.keys.candidates(cached.header.kid, cached.header.algorithm, calls)

    def _verify(self, token: str, calls: Calls) -> _Cached:
        """Verify header, signature and claims; the only place that creates a verified token."""
        parts = _COMPACT.fullmatch(token) or _reject("the token is not a JWS in compact serialization")
        signed, signature = f"{parts[1]}.{parts[2]}".encode(), decoded(parts[3], "signature", _reject)
        try:
            claims, header, issuer = self._parsed(token, parts)
        except NotAuthenticated:
            self._in_vain(signed, signature, calls)
            raise
        candidates = issuer.keys.candidates(header.kid, header.algorithm, calls)
        if not candidates:
            self._in_vain(signed, signature)
            _reject("the issuer has no such key for this alg")
        key = next((key for key in candidates if _signs(key, signed, signature)), None)
        if key is None:
            _reject("the signature does not verify")
        self._last = issuer, key
        claims = sound(claims)
        try:
            verified = self._claimed(claims, header, issuer.config)
        except NotAuthenticated as error:
            # The issuer signed it, so it is not a guess.
            raise UnusableCredential(error.reason) from None
        begins = max(claims["iat"], claims.get("nbf", 0)) - self._leeway
        return _Cached(verified, begins, issuer, header, key)

    def _in_vain(self, signed: bytes, signature: bytes, calls: Calls | None = None) -> None:
        """Verify a signature in vain.

        Otherwise the timing would reveal which issuers, keys and algorithms are known.

        :param calls: if given, look up a known key too.
        """
        if self._last is not None:
            issuer, key = self._last
            if calls is not None:
                with suppress(DependencyUnavailable):
                    issuer.keys.candidates(None, key.algorithm, calls)
            _signs(key, signed, signature)

    def _parsed(self, token: str, parts: re.Match[str]) -> tuple[dict[str, Any], _Header, TrustedIssuer]:
        """Return the unverified claims, the header, and the issuer in the claims."""
        header = self._header(parts[1])
        claims = json_object(parts[2], "payload", _reject)
        issuer = self._issuer(claims.get("iss"))
        _check_length(token, issuer.config.max_token_bytes)
        _check_header(header, issuer.config)
        return claims, header, issuer

    def _claimed(self, claims: Mapping[str, Any], header: _Header, issuer: IssuerConfig) -> VerifiedToken:
        check_claims(claims, issuer, typed=header.kind == _TYPED, now=self._clock.now(), leeway=self._leeway)
        return VerifiedToken(_principal(claims, issuer), end_of(claims, issuer.max_age), _confirmation(claims))

    def _issuer(self, name: Any) -> TrustedIssuer:
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        return issuer or _reject("the issuer is missing or not a configured one")


def _check_length(token: str, longest: int) -> None:
    if len(token) > longest:
        _reject(f"the token has more than {longest} characters")


def _header(part: str) -> _Header:
    """Return the members of a header after the checks that apply to every issuer."""
    header = json_object(part, "header", _reject)
    kind, algorithm, kid = header.get("typ", ""), header.get("alg"), header.get("kid")
    if not isinstance(kind, str):
        _reject("typ is that of another kind of token")
    if forbidden := sorted(_FORBIDDEN & header.keys()):
        _reject(f"the header has {', '.join(forbidden)}")
    if "kid" in header and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID):
        _reject(f"kid is not a string of 1 to {MAX_KID} characters")
    if not isinstance(algorithm, str):
        _reject("alg is missing or not a string")
    return _Header(algorithm, kid, media_type(kind))


def _check_header(header: _Header, issuer: IssuerConfig) -> None:
    if header.kind != _TYPED and header.kind not in issuer.header_types:
        if header.kind not in _UNTYPED:
            _reject("typ is that of another kind of token")
        if "typ" not in issuer.omits:
            _reject("typ is not at+jwt")
    if header.algorithm not in issuer.algorithms:
        _reject("alg is not allowed for this issuer")


def _signs(key: VerificationKey, signed: bytes, signature: bytes) -> bool:
    # The algorithm is that of the key, never that of the token.
    try:
        return JWSRegistry.algorithms[key.algorithm].verify(signed, signature, key.key) is True
    except (JoseError, ValueError):
        return False


def _principal(claims: Mapping[str, Any], issuer: IssuerConfig) -> Principal:
    client = client_of(claims, issuer)
    return Principal(
        "jwt",
        subject_of(claims, issuer, client),
        issuer.issuer,
        scopes_of(claims, issuer),
        plan=plan_of(claims, issuer, client),
        client_id=client,
        claims=read_only(claims),
        roles=roles_of(claims, issuer),
        token_id=claims.get("jti", ""),
        issued=float(claims["iat"]),
    )


def _confirmation(claims: Mapping[str, Any]) -> Any:
    """Return ``cnf``, not validated; unlike a missing claim, null does not mean that the token is unbound."""
    return read_only(claims["cnf"]) or {} if "cnf" in claims else None


def _reject(reason: str) -> NoReturn:
    raise NotAuthenticated(reason)
