"""Checks of authentication: API keys, sessions, secrets and the throttle of failed authentication."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ...config.cross_checks import EXAMPLE
from ...config.settings import IN_STORE
from ..finding import Check, Found, Severity, Where, key, setting
from ..setup import Setup

SHORTEST_KEY = 16
"""Minimum length of ``SECRET_KEY`` in bytes."""

SOON = 14 * 86_400
"""An API key is reported this many seconds before it expires."""


def nobody(setup: Setup) -> Iterator[Found]:
    """Yield a finding if no authentication method is configured."""
    settings = setup.settings
    others = settings.token_issuers or settings.mtls_clients or settings.session_login
    if setup.state.keys is None and not others and not setup.declared_authenticators:
        yield Found(setting("api_keys"), "no API keys, issuers or client certificates are configured")


def no_throttle(setup: Setup) -> Iterator[Found]:
    """Yield a finding if the throttle is off."""
    if not setup.settings.failed_auth_limits:
        yield Found(setting("failed_auth_limits"), "SECURE_ML_FAILED_AUTH_LIMITS is empty")


def unknown_plans(setup: Setup) -> Iterator[Found]:
    """Yield the API keys whose plan does not exist."""
    for record in setup.keys:
        if record.plan not in setup.settings.plans:
            what = f"the API key {record.id} has the plan {record.plan!r}, which is not in SECURE_ML_PLANS"
            yield Found(Where("key", record.id), what)


def expiring_keys(setup: Setup) -> Iterator[Found]:
    """Yield the API keys that expire soon and have no successor."""
    for record in setup.usable_keys:
        if record.expires is not None and record.expires - setup.now < SOON and record.replaced_by is None:
            days = int((record.expires - setup.now) // 86_400)
            what = f"the API key {record.id} of {record.client} expires in {days} days"
            yield Found(Where("key", record.id), what, f"flask secure-ml keys rotate {record.id}")


def endless_keys(setup: Setup) -> Iterator[Found]:
    """Yield the API keys that never expire."""
    for record in setup.usable_keys:
        if record.expires is None:
            what = f"the API key {record.id} of {record.client} does not expire"
            yield Found(Where("key", record.id), what)


def no_key_file(setup: Setup) -> Iterator[Found]:
    """Yield a finding if the file of the API keys does not exist, as in a build, or because its path is wrong."""
    given = setup.settings.api_keys
    if given not in {None, IN_STORE} and not setup.described and not Path(str(given)).exists():
        yield Found(setting("api_keys"), f"{given} does not exist")


def literal_secrets(setup: Setup) -> Iterator[Found]:
    """Yield the settings that contain a secret instead of a reference."""
    for name, ring in setup.secrets:
        if ring.literal:
            yield Found(key(name), f"{name} contains the secret instead of a reference to it", f'{name} = "env:NAME"')


def store_passwords(setup: Setup) -> Iterator[Found]:
    """Yield the store URIs that contain a password."""
    for name in ("SECURE_ML_STORE_URI", "RATELIMIT_STORAGE_URI"):
        if urlsplit(str(setup.app.config.get(name) or "")).password:
            yield Found(key(name), f"{name} contains a password")


def short_secret_key(setup: Setup) -> Iterator[Found]:
    """Yield a secret key that can be guessed, if sessions authenticate callers."""
    config = setup.app.config
    keys = [setup.app.secret_key or "", *(config.get("SECRET_KEY_FALLBACKS") or ())]
    short = any(len(each.encode() if isinstance(each, str) else each) < SHORTEST_KEY for each in keys if each)
    if setup.settings.session_login is not None and short:
        yield Found(key("SECRET_KEY"), f"SECRET_KEY or one of its fallbacks is shorter than {SHORTEST_KEY} bytes")


def cross_site_session(setup: Setup) -> Iterator[Found]:
    """Yield a session cookie that browsers send with requests from other sites."""
    same_site = str(setup.app.config["SESSION_COOKIE_SAMESITE"]).lower()
    if setup.settings.session_login is not None and same_site == "none":
        yield Found(key("SESSION_COOKIE_SAMESITE"), "SESSION_COOKIE_SAMESITE is None")


def readable_session(setup: Setup) -> Iterator[Found]:
    """Yield a session cookie that scripts can read."""
    if setup.settings.session_login is not None and not setup.app.config["SESSION_COOKIE_HTTPONLY"]:
        yield Found(key("SESSION_COOKIE_HTTPONLY"), "SESSION_COOKIE_HTTPONLY is off")


def shared_session(setup: Setup) -> Iterator[Found]:
    """Yield a session cookie that browsers send to other hosts."""
    if setup.settings.session_login is not None and setup.app.config["SESSION_COOKIE_DOMAIN"]:
        yield Found(key("SESSION_COOKIE_DOMAIN"), "SESSION_COOKIE_DOMAIN is set")


CHECKS = (
    Check(
        "SML201",
        Severity.WARNING,
        "No authentication method is configured",
        "Every route that is not public responds with 401.",
        'SECURE_ML_API_KEYS = "/var/lib/model/keys.json"',
        nobody,
    ),
    Check(
        "SML202",
        Severity.WARNING,
        "Failed authentication is not limited",
        "A client can guess credentials and cause introspection requests without limit.",
        'SECURE_ML_FAILED_AUTH_LIMITS = ["30/minute"]',
        no_throttle,
    ),
    Check(
        "SML203",
        Severity.ERROR,
        "An API key has an unknown plan",
        "Every request with this key is rejected.",
        'SECURE_ML_PLANS = {"default": {...}, "gold": {"requests": ["6000/minute"]}}',
        unknown_plans,
    ),
    Check(
        "SML204",
        Severity.WARNING,
        "An API key expires soon",
        "After that, its client gets 401.",
        "flask secure-ml keys rotate ID",
        expiring_keys,
    ),
    Check(
        "SML205",
        Severity.NOTE,
        "An API key does not expire",
        "A leaked key stays valid until it is revoked.",
        "flask secure-ml keys create --client NAME --expires-days 90",
        endless_keys,
    ),
    Check(
        "SML206",
        Severity.WARNING,
        "The configuration contains a secret",
        "Anyone who can read the configuration gets the secret. Outside debug and testing mode, the app rejects it.",
        'SECURE_ML_API_KEY_PEPPER = "env:API_KEY_PEPPER"',
        literal_secrets,
    ),
    Check(
        "SML207",
        Severity.WARNING,
        "A store URI contains a password",
        "Anyone who can read the configuration or the process list gets the password.",
        'SECURE_ML_STORE_PASSWORD = "env:STORE_PASSWORD"',
        store_passwords,
    ),
    Check(
        "SML208",
        Severity.WARNING,
        "The secret key is short",
        "An attacker who guesses it can forge a session of any user.",
        f"SECRET_KEY, generated with {EXAMPLE}",
        short_secret_key,
    ),
    Check(
        "SML209",
        Severity.WARNING,
        "The session cookie is sent from other sites",
        "Browsers send it with requests that other sites make, which allows CSRF.",
        'SESSION_COOKIE_SAMESITE = "Lax"',
        cross_site_session,
    ),
    Check(
        "SML210",
        Severity.WARNING,
        "Scripts can read the session cookie",
        "A script that is injected into a page can steal the session.",
        "SESSION_COOKIE_HTTPONLY = True",
        readable_session,
    ),
    Check(
        "SML211",
        Severity.WARNING,
        "The session cookie is sent to subdomains",
        "A compromised subdomain gets the sessions of all users.",
        "SESSION_COOKIE_DOMAIN = None",
        shared_session,
    ),
    Check(
        "SML214",
        Severity.NOTE,
        "The API key file does not exist",
        "Until the first key is created, requests with an API key are rejected with 503.",
        "flask secure-ml keys create --client NAME --expires-days 90, or the right path in SECURE_ML_API_KEYS",
        no_key_file,
    ),
)
