"""DPoP proofs (RFC 9449): the sender of an access token also signs the request.

All checks of section 4.3 are made, the cheap ones before the signature. A proof is stored as used only after it has
passed all of them. ``authenticator.check_binding`` checks whether the token is bound to the key of the proof.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Request
from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from ...config.issuers import ASYMMETRIC
from ...errors import InvalidProof, NonceRequired
from ...exchange import Exchange
from ...principal import Clock
from ...stores.base import SharedStore
from .compact import decoded, json_object
from .key_set import KeySetError, import_key
from .nonces import Nonces

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


MAX_PROOF = 8192
"""The maximum length of a proof in characters; servers limit a header line to about as many."""

MAX_JTI = 512
"""The maximum length of ``jti`` in characters."""

FUTURE_SKEW = 5
"""Seconds by which a client's clock may be ahead (RFC 9449 section 11.1)."""

_CLOCKS_APART = 5
_CACHED_KEYS = 1024
_MAX_JSON_DEPTH = 8
_NONCE_HEADER = "DPoP-Nonce"
_SPACE = "dpop"
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# RFC 7515 section 4.1.9: without a slash "application/" is implied, and the comparison is case-insensitive.
_TYPES = frozenset({"dpop+jwt", "application/dpop+jwt"})
# Members that change how a proof is processed or contain a second key (RFC 8725bis sections 3.4, 3.10).
_FORBIDDEN = frozenset({"crit", "b64", "zip", "cty", "enc", "jku", "x5u", "x5c"})
# Base64url of 32 bits. The sender chooses the key, and verification with a long exponent takes milliseconds.
_MAX_EXPONENT = 6
Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _ProofKey:
    key: Key
    algorithm: str
    thumbprint: str


class ProofChecker:
    """Checks the proof that is sent with an access token.

    :param algorithms: the algorithms that proofs may be signed with; asymmetric ones only.
    :param max_age: seconds for which a proof is valid.
    :param store: stores the used proofs, for all workers that share it.
    :param nonces: if given, a proof must have a nonce of this server; otherwise, a nonce in a proof is ignored.
    :param leeway: seconds by which a client's clock may be ahead.
    :param external: the URL of the app's root for clients; None to use that of the request.
    :raises ValueError: an algorithm is not asymmetric, or ``external`` is not an ``http`` or ``https`` URI.
    """

    def __init__(
        self,
        algorithms: Sequence[str],
        max_age: float,
        clock: Clock,
        store: SharedStore,
        nonces: Nonces | None = None,
        *,
        leeway: float = FUTURE_SKEW,
        external: str | None = None,
    ) -> None:
        if not ASYMMETRIC.issuperset(algorithms):
            raise ValueError("proofs must be signed with asymmetric algorithms")
        self._max_age = max_age
        self._clock = clock
        self._store = store
        self._nonces = nonces
        self._leeway = leeway
        self._uris = RequestUris(external)
        # All proofs of a client have the same header, and importing a key costs as much as verifying a signature.
        self._key = lru_cache(_CACHED_KEYS)(partial(_proof_key, algorithms=tuple(algorithms)))

    def check(
        self, request: Request, exchange: Exchange, token: str, accept: Callable[[str], None] = lambda _: None
    ) -> str:
        """Return the thumbprint of the key that signed the proof of a request (RFC 7638, SHA-256).

        If nonces are used, the response has the current one unless the proof already has it.

        :param token: the access token of the request.
        :param accept: raises an error unless the token is bound to this key; called before the proof is stored.
        :raises InvalidProof: the proof is missing, malformed, stale, already used, or not for this request and token.
        :raises NonceRequired: it has no valid nonce of this server.
        :raises DependencyUnavailable: the store or the secret of the nonces cannot be reached.
        """
        nonce = self._offer_nonce(exchange)
        proof, header, payload, signature = _parts(request.environ.get("HTTP_DPOP"))
        key = self._key(header)
        claims = json_object(payload, "payload", _reject, _MAX_JSON_DEPTH)
        identifier = _string(claims, "jti")
        self._check_request(claims, request)
        self._check_times(claims)
        _check_token(claims, token)
        self._check_nonce(claims.get("nonce"), nonce, exchange)
        _check_signature(key, proof, signature)
        accept(key.thumbprint)
        self._use_once(key.thumbprint, identifier)
        return key.thumbprint

    def _offer_nonce(self, exchange: Exchange) -> str:
        if self._nonces is None:
            return ""
        nonce = exchange.reply_headers[_NONCE_HEADER] = self._nonces.current()
        return nonce

    def _check_request(self, claims: Claims, request: Request) -> None:
        if claims.get("htm") != request.method:
            _reject("htm is not the method of the request")
        try:
            uri = normal_uri(_string(claims, "htu", MAX_PROOF))
        except ValueError:
            _reject("htu is not an absolute http or https URI")
        if uri != self._uris.of(request.environ):
            _reject("htu is not the URI of the request")

    def _check_times(self, claims: Claims) -> None:
        now = self._clock.now()
        issued = _date(claims, "iat")
        if issued < now - self._max_age:
            _reject("the proof is too old")
        if issued > now + self._leeway or ("nbf" in claims and _date(claims, "nbf") > now + self._leeway):
            _reject("the proof is from the future")
        # RFC 9449 does not require these two, but RFC 7519 section 4.1 requires honoring them.
        if "exp" in claims and _date(claims, "exp") <= now:
            _reject("the proof has expired according to its exp")

    def _check_nonce(self, given: Any, current: str, exchange: Exchange) -> None:
        if self._nonces is None:
            return
        if given == current:
            del exchange.reply_headers[_NONCE_HEADER]
        elif not isinstance(given, str) or not self._nonces.accepts(given):
            raise NonceRequired("the proof has no nonce of this server, or one that is too old")

    def _use_once(self, thumbprint: str, identifier: str) -> None:
        digest = hashlib.sha256(f"{thumbprint}.{identifier}".encode()).hexdigest()
        seconds = self._max_age + self._leeway + _CLOCKS_APART
        if not self._store.add(_SPACE, digest, seconds):
            _reject("the proof was used before")


def _parts(proof: Any) -> tuple[str, str, str, bytes]:
    """Return a proof, its encoded header and payload, and its decoded signature."""
    if not proof:
        _reject("there is no DPoP header")
    if len(proof) > MAX_PROOF:
        _reject(f"the proof has more than {MAX_PROOF} characters")
    found = _COMPACT.fullmatch(proof)
    if found is None:
        # Servers join the values of two headers with a comma.
        _reject("the DPoP header is not one JWT in compact form")
    return proof, found[1], found[2], decoded(found[3], "signature", _reject)


def _proof_key(part: str, *, algorithms: Sequence[str]) -> _ProofKey:
    """Return the key in a header; ``kid`` is ignored."""
    header = json_object(part, "header", _reject, _MAX_JSON_DEPTH)
    kind, algorithm, jwk = header.get("typ"), header.get("alg"), header.get("jwk")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        _reject("typ is not dpop+jwt")
    if forbidden := sorted(_FORBIDDEN & header.keys()):
        _reject(f"the header has {', '.join(forbidden)}")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        _reject("alg is not allowed for proofs")
    return _imported(jwk, algorithm) if isinstance(jwk, dict) else _reject("the header has no jwk")


def _imported(jwk: Mapping[str, Any], algorithm: str) -> _ProofKey:
    if len(str(jwk.get("e", ""))) > _MAX_EXPONENT:
        _reject("the RSA exponent of jwk has more than 32 bits")
    try:
        key = import_key(jwk, (algorithm,)).key
    except KeySetError as error:
        _reject(f"jwk cannot be used for proofs: {error}")
    except (JoseError, ValueError, TypeError) as error:
        _reject(f"jwk is not a public key: {type(error).__name__}")
    return _ProofKey(key, algorithm, key.thumbprint())


def _string(claims: Claims, name: str, longest: int = MAX_JTI) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        _reject(f"{name} is missing or not a string of 1 to {longest} characters")
    return value


def _date(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        _reject(f"{name} is missing or not a number of seconds")
    return value


def _check_token(claims: Claims, token: str) -> None:
    # The client sent both values, so the comparison need not take constant time.
    digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=")
    if claims.get("ath") != digest.decode():
        _reject("ath is not the digest of the access token")


def _check_signature(key: _ProofKey, proof: str, signature: bytes) -> None:
    signed = proof.rpartition(".")[0].encode()
    try:
        valid = JWSRegistry.algorithms[key.algorithm].verify(signed, signature, key.key)
    except (JoseError, ValueError):
        valid = False
    if not valid:
        _reject("the signature does not verify with jwk")


def _reject(reason: str) -> NoReturn:
    raise InvalidProof(reason)


# urlsplit() drops tabs and newlines and accepts all other characters, so they are checked first.
_URI = re.compile(r"(?:[!-$&-~]|%[0-9A-Fa-f]{2})+")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}

NormalUri = tuple[str, bytes]
"""Scheme and authority, and the decoded path."""


def normal_uri(uri: str) -> NormalUri:
    """Return the normal form of an absolute URI, without query and fragment (RFC 9449 section 4.3).

    The case of scheme and host, the default port, percent-encoding, dot segments and an empty path are normalized
    (RFC 3986 sections 6.2.2 and 6.2.3).

    :raises ValueError: it is not an ``http`` or ``https`` URI with a host and without a user.
    """
    if not _URI.fullmatch(uri):
        raise ValueError("not a URI")
    parts = urlsplit(uri)
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc or "@" in parts.netloc:
        raise ValueError("not an http or https URI with a host and without a user")
    path = parts.path.replace("%2e", ".").replace("%2E", ".") or "/"
    return _origin(parts.scheme, parts.netloc), unquote_to_bytes(_without_dots(path))


class RequestUris:
    """Computes the URI that a client used to reach this app.

    :param external: the URL of the app's root for clients, such as ``https://models.example.com/v1``. Its scheme and
        host replace those of the request, and its path replaces the one at which the app is mounted. None uses those
        of the request.
    :raises ValueError: it is not an ``http`` or ``https`` URI.
    """

    def __init__(self, external: str | None = None) -> None:
        self._external = None if external is None else normal_uri(external)

    def of(self, environ: WSGIEnvironment) -> NormalUri:
        """Return the normal form of the URI of a request."""
        origin, mount = self._external or (_origin_of(environ), b"")
        mount = mount.rstrip(b"/") or environ.get("SCRIPT_NAME", "").encode("latin-1").rstrip(b"/")
        path = environ.get("PATH_INFO", "").encode("latin-1")
        return origin, mount + (path if path.startswith(b"/") else b"/" + path)


def _origin_of(environ: WSGIEnvironment) -> str:
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return _origin(environ["wsgi.url_scheme"], host)


def _origin(scheme: str, authority: str) -> str:
    bare = authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ":")).removesuffix(":")
    return f"{scheme}://{bare}"


def _without_dots(path: str) -> str:
    """Resolve the dot segments of an absolute path (RFC 3986 section 5.2.4)."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
