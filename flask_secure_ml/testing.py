"""Parts for the tests of apps that use flask-secure-ml: a clock, a log in memory, factories for keys and tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from joserfc.jwk import ECKey, Key, KeyParameters, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from .authentication.api_keys.key import KeyStore
from .authentication.api_keys.lifecycle import issue_key
from .principal import Clock
from .secrets import SecretRing

_EC_CURVES: Mapping[str, Literal["P-256", "P-384", "P-521"]] = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class FakeClock:
    """A clock that stands still until a test moves it.

    :param now: seconds since the epoch at the start.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now

    def now(self) -> float:
        """Return seconds since the epoch (UTC)."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds


class MemorySink:
    """Keeps the lines of the request log: ``SecureML(sink=MemorySink())``."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        """Keep one line."""
        self.lines.append(line)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Every line, parsed."""
        return [json.loads(line) for line in self.lines]


# --- factories for keys and tokens -----------------------------------------------------------------------


def make_signing_key(algorithm: str = "RS256", kid: str | None = "test") -> Key:
    """Return a new private key that signs with one algorithm.

    :param algorithm: such as ``RS256``, ``PS256``, ``ES256`` or ``Ed25519``.
    :param kid: the name under which :func:`make_key_set` publishes it; None for a key without a name.
    """
    parameters: KeyParameters = {"alg": algorithm, "use": "sig"}
    if kid is not None:
        parameters["kid"] = kid
    if algorithm in _EC_CURVES:
        return ECKey.generate_key(_EC_CURVES[algorithm], parameters)
    if algorithm.startswith("Ed"):
        return OKPKey.generate_key("Ed25519", parameters)
    return RSAKey.generate_key(2048, parameters)


def make_key_set(*keys: Key) -> str:
    """Return the JWK Set that publishes the public halves of some keys: the content of a ``jwks_file``."""
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


def make_token(
    key: Key,
    *,
    issuer: str,
    audience: str,
    now: float,
    scope: str = "predict",
    lifetime: float = 300,
    header: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Return an RFC 9068 access token, right in every way that is not overridden.

    The token is always signed by the key with its own algorithm, whatever the header says, so a test can make
    tokens that lie.

    :param now: the ``iat``, in seconds since the epoch.
    :param lifetime: seconds from ``iat`` to ``exp``.
    :param header: members put over those of the header; ``...`` as a value leaves the member out.
    :param claims: claims put over the usual ones; ``...`` as a value leaves the claim out.
    """
    usual = {
        "iss": issuer,
        "aud": audience,
        "sub": "alice",
        "client_id": "tests",
        "iat": now,
        "exp": now + lifetime,
        "jti": secrets.token_hex(8),
        "scope": scope,
    }
    head = {"alg": key.alg, "typ": "at+jwt"} | ({"kid": key.kid} if key.kid else {})
    return sign_parts(key, _overridden(head, header).encode(), _overridden(usual, claims).encode())


def make_dpop_proof(
    key: Key,
    token: str,
    *,
    now: float,
    method: str = "POST",
    uri: str = "https://localhost/predict",
    nonce: str | None = None,
    header: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
) -> str:
    """Return a DPoP proof (RFC 9449 section 4.2), right in every way that is not overridden.

    The token must be bound to the key: ``make_token(..., claims={"cnf": {"jkt": key.thumbprint()}})``.

    :param token: the access token that the proof goes with.
    :param now: the ``iat``, in seconds since the epoch.
    :param uri: the address of the request, without a query.
    :param nonce: what an earlier answer gave in ``DPoP-Nonce``.
    :param header: members put over those of the header; ``...`` as a value leaves the member out.
    :param claims: claims put over the usual ones; ``...`` as a value leaves the claim out.
    """
    digest = _base64url(hashlib.sha256(token.encode()).digest())
    usual = {"jti": secrets.token_hex(16), "htm": method, "htu": uri, "iat": now, "ath": digest}
    given = usual | ({} if nonce is None else {"nonce": nonce})
    head = {"typ": "dpop+jwt", "alg": key.alg, "jwk": key.as_dict(private=False)}
    return sign_parts(key, _overridden(head, header).encode(), _overridden(given, claims).encode())


def sign_parts(key: Key, header: bytes, payload: bytes) -> str:
    """Return the compact JWS (RFC 7515) of a header and a payload byte by byte, sound JSON or not."""
    algorithm = JWSRegistry.algorithms[str(key.alg)]
    signed = f"{_base64url(header)}.{_base64url(payload)}"
    return f"{signed}.{_base64url(algorithm.sign(signed.encode(), key))}"


def make_api_key(
    store: KeyStore,
    pepper: SecretRing,
    clock: Clock,
    *,
    client: str = "tests",
    scopes: Iterable[str] = ("predict",),
    plan: str = "default",
    lifetime: float | None = None,
    endpoints: Iterable[str] | None = None,
) -> str:
    """Store a new API key and return its text.

    :param store: such as ``app.extensions["secure_ml"].keys``.
    :param pepper: such as ``app.extensions["secure_ml"].settings.api_key_pepper``.
    :param lifetime: seconds until it expires, or None for a key that does not.
    :param endpoints: the endpoints or URL rules that it is for, or None for every one.
    """
    now = clock.now()
    expires = None if lifetime is None else now + lifetime
    return issue_key(
        store, pepper, client=client, scopes=scopes, now=now, plan=plan, expires=expires, endpoints=endpoints
    )[0]


def _overridden(usual: Mapping[str, Any], given: Mapping[str, Any] | None) -> str:
    return json.dumps({name: value for name, value in {**usual, **(given or {})}.items() if value is not ...})


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
