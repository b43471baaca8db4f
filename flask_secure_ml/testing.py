"""Tools for tests of your app: a fake clock, an HTTPS client, a request log in memory, keys and tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from flask import Flask
from flask.testing import FlaskClient
from joserfc.jwk import ECKey, Key, KeyParameters, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

from .authentication.api_keys.lifecycle import issue_key
from .state import state_of

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
        """Return the seconds of a clock that never goes backwards."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += seconds


class MemorySink:
    """A request log in memory: ``SecureML(sink=MemorySink())``."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        """Append one line."""
        self.lines.append(line)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The parsed lines."""
        return [json.loads(line) for line in self.lines]


class SecureClient(FlaskClient):
    """A test client that sends every request over HTTPS, with a credential.

    Use it as ``SecureClient(app, api_key=make_api_key(app))``, or as ``app.test_client_class``.

    :param api_key: the API key of every request.
    :param token: the access token of every request.
    :param headers: other headers of every request, such as ``{"X-Forwarded-For": "192.0.2.1"}``.
    """

    def __init__(
        self,
        app: Flask,
        response_wrapper: type[Response] | None = None,
        *,
        use_cookies: bool = True,
        api_key: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(app, response_wrapper or app.response_class, use_cookies=use_cookies)
        credentials = {"X-API-Key": api_key, "Authorization": None if token is None else f"Bearer {token}"}
        for name, value in {**credentials, **(headers or {})}.items():
            if value is not None:
                self.environ_base["HTTP_" + name.upper().replace("-", "_")] = value

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """Send a request; ``base_url`` and ``url_scheme`` override the scheme."""
        if "base_url" not in kwargs and (not args or isinstance(args[0], str)):
            kwargs.setdefault("url_scheme", "https")
        return super().open(*args, **kwargs)


# --- API keys, signing keys, tokens and proofs ------------------------------------------------------------------------


def make_signing_key(algorithm: str = "RS256", kid: str | None = "test") -> Key:
    """Return a new private key for a signature algorithm.

    :param algorithm: such as ``RS256``, ``PS256``, ``ES256`` or ``Ed25519``.
    :param kid: the id under which :func:`make_key_set` publishes it; None for a key without an id.
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
    """Return a JWK Set with the public parts of keys, for use as a ``jwks_file``."""
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
    """Return an access token (RFC 9068), valid unless something is overridden.

    The key signs with its own algorithm, regardless of the header, so that tests can create tokens with a wrong header.

    :param now: the ``iat``, in seconds since the epoch.
    :param lifetime: seconds from ``iat`` to ``exp``.
    :param header: members that replace those of the header; ``...`` as a value removes the member.
    :param claims: claims that replace the default ones; ``...`` as a value removes the claim.
    """
    defaults = {
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
    return sign_parts(key, _overridden(head, header).encode(), _overridden(defaults, claims).encode())


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
    """Return a DPoP proof (RFC 9449 section 4.2), valid unless something is overridden.

    The token must be bound to the key: ``make_token(..., claims={"cnf": {"jkt": key.thumbprint()}})``.

    :param token: the access token that the proof is sent with.
    :param now: the ``iat``, in seconds since the epoch.
    :param uri: the URL of the request, without its query.
    :param nonce: the ``DPoP-Nonce`` of an earlier response.
    :param header: members that replace those of the header; ``...`` as a value removes the member.
    :param claims: claims that replace the default ones; ``...`` as a value removes the claim.
    """
    digest = _base64url(hashlib.sha256(token.encode()).digest())
    defaults = {"jti": secrets.token_hex(16), "htm": method, "htu": uri, "iat": now, "ath": digest}
    given = defaults | ({} if nonce is None else {"nonce": nonce})
    head = {"typ": "dpop+jwt", "alg": key.alg, "jwk": key.as_dict(private=False)}
    return sign_parts(key, _overridden(head, header).encode(), _overridden(given, claims).encode())


def sign_parts(key: Key, header: bytes, payload: bytes) -> str:
    """Return a JWS in compact serialization (RFC 7515); header and payload need not be valid JSON."""
    algorithm = JWSRegistry.algorithms[str(key.alg)]
    signed = f"{_base64url(header)}.{_base64url(payload)}"
    return f"{signed}.{_base64url(algorithm.sign(signed.encode(), key))}"


def make_api_key(
    app: Flask,
    *,
    client: str = "tests",
    scopes: Iterable[str] = ("predict",),
    plan: str = "default",
    lifetime: float | None = None,
    endpoints: Iterable[str] | None = None,
) -> str:
    """Create an API key in the key store of an app, and return it.

    :param app: a protected app with ``SECURE_ML_API_KEYS``.
    :param client: the name of the client, as in the log.
    :param plan: one of ``SECURE_ML_PLANS``.
    :param lifetime: seconds until the key expires, or None for a key that does not expire.
    :param endpoints: the endpoints or URL rules that the key is valid for, or None for all.
    :raises RuntimeError: the app is not protected, or has no API keys.
    """
    state = state_of(app)
    pepper = state.settings.api_key_pepper
    if state.keys is None or pepper is None:
        raise RuntimeError(f"{app.name!r} has no API keys: set SECURE_ML_API_KEYS and SECURE_ML_API_KEY_PEPPER")
    now = state.clock.now()
    expires = None if lifetime is None else now + lifetime
    key, _ = issue_key(
        state.keys, pepper, client=client, scopes=scopes, now=now, plan=plan, expires=expires, endpoints=endpoints
    )
    return key


def _overridden(defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> str:
    return json.dumps({name: value for name, value in {**defaults, **(given or {})}.items() if value is not ...})


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
