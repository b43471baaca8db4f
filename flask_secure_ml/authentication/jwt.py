"""RFC 9068 access tokens: one way from the text of a token to a :class:`Principal`, and it checks everything."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

from flask import Request
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, deserialize_compact

from ..checks import ALGORITHMS, IssuerConfig
from ..config import Settings
from ..errors import MalformedRequest, NotAuthenticated
from ..exchange import Clock, Exchange, Principal
from ..strictjson import loads
from .base import single_word
from .claims import check_claims
from .jwks import KeySource, key_source
from .key_set import MAX_KID, VerificationKey

MAX_TOKEN = 8192
"""The longest token in characters; servers cap a header line at about the same."""

_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# Members that change how a token is processed or bring a key of their own (RFC 8725bis sections 3.4, 3.10).
_REFUSED = frozenset({"crit", "b64", "zip", "cty", "enc", "jwk", "jku", "x5u", "x5c"})


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer and where its keys are."""

    config: IssuerConfig
    keys: KeySource


class JwtAuthenticator:
    """Accepts ``Authorization: Bearer <JWT>`` from the configured issuers.

    A token bound to a key (``cnf``) is refused: as a plain Bearer token it proves nothing about its sender.

    :param issuers: whose tokens are accepted; each name once.
    :param clock: tells when a token has expired.
    :param leeway: seconds by which the clocks of issuer and server may differ.
    """

    name = "jwt"
    challenge = "Bearer"

    def __init__(self, issuers: Mapping[str, TrustedIssuer], clock: Clock, leeway: float = 30) -> None:
        self._issuers = dict(issuers)
        self._clock = clock
        self._leeway = leeway

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock) -> JwtAuthenticator:
        """Return the authenticator for ``SECURE_ML_JWT_ISSUERS``; nothing is fetched before the first token."""
        trusted = [TrustedIssuer(each, key_source(each, settings, clock)) for each in settings.jwt_issuers]
        return cls({each.config.issuer: each for each in trusted}, clock, settings.jwt_leeway)

    def find(self, request: Request, exchange: Exchange) -> str | None:
        """Return the token.

        :raises MalformedRequest: what follows ``Bearer`` is not one b64token (RFC 6750 section 2.1).
        """
        token = single_word(request, "bearer")
        if token is not None and not _B64TOKEN.fullmatch(token):
            raise MalformedRequest("the Bearer token has characters that no token has")
        return token

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        """Return the subject of a token whose form, signature and claims are all right (RFC 9068 section 4).

        :raises NotAuthenticated: anything else.
        :raises DependencyUnavailable: the keys of its issuer are not known.
        """
        header, claims = _read(credential)
        _check_header(header)
        issuer = self._issuer(claims.get("iss"))
        _verify_signature(credential, _key(header, issuer))
        scopes = check_claims(claims, audience=issuer.config.audience, now=self._clock.now(), leeway=self._leeway)
        return Principal(
            "jwt",
            claims["sub"],
            issuer.config.issuer,
            scopes,
            client_id=claims["client_id"],
            claims=MappingProxyType(claims),
        )

    def _issuer(self, name: Any) -> TrustedIssuer:
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        return issuer or _refuse("the issuer is missing or not a configured one")


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token, both unverified."""
    if len(token) > MAX_TOKEN:
        _refuse(f"the token has more than {MAX_TOKEN} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        _refuse("the token is not a signed one in compact form")
    return _object(parts[1], "header"), _object(parts[2], "payload")


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        value = loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError as error:
        _refuse(f"the {what} is not strict JSON: {error}")
    return value if isinstance(value, dict) else _refuse(f"the {what} is not a JSON object")


def _check_header(header: Mapping[str, Any]) -> None:
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        _refuse("typ is not at+jwt")
    if refused := sorted(_REFUSED & header.keys()):
        _refuse(f"the header has {', '.join(refused)}")
    if "kid" in header and (not isinstance(header["kid"], str) or not 0 < len(header["kid"]) <= MAX_KID):
        _refuse(f"kid is not a text of 1 to {MAX_KID} characters")


def _key(header: Mapping[str, Any], issuer: TrustedIssuer) -> VerificationKey:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in issuer.config.algorithms:
        _refuse("alg is not one that the issuer may use")
    return issuer.keys.find(header.get("kid"), algorithm) or _refuse("the issuer has no such key for this alg")


def _verify_signature(token: str, key: VerificationKey) -> None:
    try:
        deserialize_compact(token, key.key, registry=_REGISTRIES[key.algorithm])
    except (JoseError, ValueError) as error:
        # The text of the error may repeat the header, so only its kind goes to the log.
        _refuse(f"the signature does not verify: {type(error).__name__}")


def _refuse(reason: str) -> NoReturn:
    raise NotAuthenticated(reason)


class _OneAlgorithm(JWSRegistry):
    """Knows one algorithm only, so that no default list of the library ever decides."""

    max_header_length = MAX_TOKEN

    def __init__(self, algorithm: str) -> None:
        # RFC 7515 section 4: header members that are not understood are ignored, unless crit names them.
        super().__init__(algorithms=[algorithm], strict_check_header=False)
        self._only = self.algorithms[algorithm]

    def get_alg(self, name: str) -> Any:
        """Return the algorithm; the library's warning about the name EdDSA would come with every request."""
        if name != self._only.name:
            raise UnsupportedAlgorithmError(name)
        return self._only


_REGISTRIES: Mapping[str, _OneAlgorithm] = {name: _OneAlgorithm(name) for name in ALGORITHMS}
