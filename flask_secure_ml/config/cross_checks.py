"""Checks across settings: contradictions, shared secrets, missing packages, and keys of Flask and Flask-Limiter.

Each check takes the settings and yields problems: a path (a setting in lower case, then names and indexes) and a
sentence. It stops when it reads a setting that is invalid itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..policy.schema import Check, Problem, known
from .alerts import check_alert_secret, check_alerts
from .audit import check_audit
from .issuers import IssuerConfig
from .metrics import check_metrics_token, check_server_certificate
from .settings import IN_STORE

if TYPE_CHECKING:
    from . import Settings

_SECRETS = ("api_key_pepper", "dpop_nonce_secret", "alert_webhook_secret", "metrics_token")

EXAMPLE = "python -c 'import secrets; print(secrets.token_hex(32))'"


def check_api_keys(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if API keys have no pepper."""
    if settings.api_keys is not None and settings.api_key_pepper is None:
        yield (
            ("api_key_pepper",),
            f'is required for API keys; set it to "env:API_KEY_PEPPER", a secret generated with {EXAMPLE}',
        )


def check_key_store(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if API keys are in a store that other processes cannot read."""
    if settings.api_keys == IN_STORE and settings.store_uri.startswith("memory:"):
        yield (
            ("store_uri",),
            "must not be memory: with SECURE_ML_API_KEYS=store; set it to sqlite:/path or redis://host",
        )


def check_certificates(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if certificates cannot be verified."""
    if settings.mtls_ca_file is None and any(not each.sha256 for each in settings.mtls_clients):
        yield ("mtls_ca_file",), "is required for clients in SECURE_ML_MTLS_CLIENTS without sha256"


def check_proofs(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if DPoP is on without the URL of this API."""
    if settings.dpop != "off" and settings.resource_uri is None:
        yield (
            ("resource_uri",),
            "is required with SECURE_ML_DPOP: the URL in a proof is compared with it, not with the Host header",
        )


def check_proof_tokens(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if DPoP is on without token issuers."""
    if settings.dpop != "off" and not settings.token_issuers:
        yield ("dpop",), "requires SECURE_ML_TOKEN_ISSUERS: a proof accompanies an access token"


def check_plans(settings: Settings) -> Iterator[Problem]:
    """Yield the clients whose plan does not exist."""
    for index, client in enumerate(settings.mtls_clients):
        if client.plan not in settings.plans:
            names = ", ".join(settings.plans)
            yield ("mtls_clients", index, "plan"), f"{client.plan!r} is not in SECURE_ML_PLANS, which has {names}"


def check_session_plan(settings: Settings) -> Iterator[Problem]:
    """Yield a problem if the plan of logged-in users does not exist."""
    login = settings.session_login
    if login is not None and login.plan not in settings.plans:
        names = ", ".join(settings.plans)
        yield ("session_login", "plan"), f"{login.plan!r} is not in SECURE_ML_PLANS, which has {names}"


def check_token_plans(settings: Settings) -> Iterator[Problem]:
    """Yield the plans of token issuers that do not exist."""
    for index, issuer in enumerate(settings.token_issuers):
        for value, plan in issuer.plans:
            if plan not in settings.plans:
                names = ", ".join(settings.plans)
                yield (
                    ("token_issuers", index, "plans", value),
                    f"{plan!r} is not in SECURE_ML_PLANS, which has {names}",
                )


def needs_package(setting: str, module: str, extra: str, wanted: Callable[[Any], bool]) -> Check:
    """Return a check for a value of a setting that needs an optional package."""

    def check(settings: Settings) -> Iterator[Problem]:
        if wanted(getattr(settings, setting)) and not _installed(module):
            yield (setting,), f"requires the package {module}: pip install 'flask-secure-ml[{extra}]'"

    return check


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def check_shared_secrets(settings: Settings) -> Iterator[Problem]:
    """Yield the secrets that serve two purposes, which allows cross-protocol forgery (RFC 8725bis 3.8)."""
    seen: dict[bytes, str] = {}
    for path, ring in (
        *(((name,), known(settings, name)) for name in _SECRETS),
        *((("token_issuers", index, "secret"), each.secret) for index, each in _issuers(settings)),
    ):
        name = f"SECURE_ML_{str(path[0]).upper()}" + "".join(f"[{step}]" for step in path[1:2])
        for value in ring.check() if ring else ():
            if seen.setdefault(value, name) != name:
                yield path, f"is the same secret as {seen[value]}; generate one for each purpose"


def _issuers(settings: Settings) -> Iterable[tuple[int, IssuerConfig]]:
    return enumerate(known(settings, "token_issuers") or ())


CROSS_CHECKS: tuple[Check, ...] = (
    check_api_keys,
    check_key_store,
    check_certificates,
    check_proofs,
    check_proof_tokens,
    check_plans,
    check_token_plans,
    check_session_plan,
    check_shared_secrets,
    check_audit,
    check_alerts,
    check_alert_secret,
    check_metrics_token,
    check_server_certificate,
    needs_package("store_uri", "redis", "redis", lambda uri: uri.startswith(("redis", "valkey", "unix"))),
    needs_package("wire_formats", "msgpack", "msgpack", lambda formats: "msgpack" in formats),
    needs_package("openapi", "apispec", "openapi", lambda mode: mode != "off"),
    needs_package("sentry_dsn", "sentry_sdk", "sentry", lambda dsn: dsn is not None),
    needs_package("metrics", "prometheus_client", "metrics", lambda path: path is not None),
    needs_package("metrics_listen", "prometheus_client", "metrics", lambda address: address is not None),
    needs_package(
        "content_encodings",
        "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd",
        "zstd",
        lambda encodings: "zstd" in encodings,
    ),
)

RATELIMIT = {"RATELIMIT_STORAGE_URI", "RATELIMIT_STRATEGY", "RATELIMIT_ENABLED"}
"""Configuration keys of Flask-Limiter that keep their documented effect."""

_INSTEAD = {
    "RATELIMIT_DEFAULT": "set these limits as requests of a plan in SECURE_ML_PLANS",
    "RATELIMIT_APPLICATION": "set these limits as requests of a plan in SECURE_ML_PLANS",
    "RATELIMIT_SWALLOW_ERRORS": "set SECURE_ML_LIMIT_OUTAGE to the policy during an outage of the storage",
    "RATELIMIT_IN_MEMORY_FALLBACK": "set SECURE_ML_LIMIT_OUTAGE to the policy during an outage of the storage",
    "RATELIMIT_KEY_FUNC": "limits are counted per caller",
    "RATELIMIT_STORAGE_OPTIONS": "set options in the URI, and the timeout in SECURE_ML_STORE_TIMEOUT",
    "RATELIMIT_HEADERS": "SECURE_ML_LIMIT_HEADERS sends RateLimit and RateLimit-Policy",
}


def ratelimit_problems(config: Mapping[str, Any], *, own_limiter: bool = False) -> Iterator[str]:
    """Yield a sentence for each ``RATELIMIT_*`` key that would have no effect.

    :param own_limiter: the app has its own ``flask_limiter.Limiter``, which these keys may configure.
    """
    for key in sorted(key for key in config if key.startswith("RATELIMIT_")):
        if key not in RATELIMIT and not own_limiter:
            instead = next((hint for prefix, hint in _INSTEAD.items() if key.startswith(prefix)), None)
            remove = "remove it" if instead is None else f"{instead}; remove it"
            yield f"{key}: has no effect; {remove}, or create your own Limiter before SecureML"
    if config.get("RATELIMIT_ENABLED", True) is not True:
        yield "RATELIMIT_ENABLED: must be true; to disable limits, remove them from plans and policies"


def session_cookie(config: Mapping[str, Any], *, require_tls: bool, remember: bool = False) -> dict[str, Any]:
    """Return the changes to the settings of Flask's session cookie.

    :param remember: also secure the remember-me cookie of Flask-Login.

    If TLS is required, cookies can be ``Secure``. Otherwise ``Secure`` is not changed: a browser drops a ``Secure``
    cookie that it gets without TLS, and with it the session.
    """
    changes: dict[str, Any] = {}
    for cookie in ("SESSION_COOKIE", "REMEMBER_COOKIE") if remember else ("SESSION_COOKIE",):
        if require_tls and not config.get(f"{cookie}_SECURE"):
            changes[f"{cookie}_SECURE"] = True
        if not config.get(f"{cookie}_SAMESITE"):
            changes[f"{cookie}_SAMESITE"] = "Lax"
    return changes
