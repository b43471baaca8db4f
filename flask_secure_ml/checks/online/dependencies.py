"""Probes of dependencies that requests need: stores, secrets, issuers and the audit log."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from ...errors import DependencyUnavailable
from ...limits.rules import Kind, Rule, RuleSet
from ...stores import open_store
from ..finding import Check, Found, Severity, Where, setting
from .subject import Online

_SPACE = "check"


def store(online: Online) -> Iterator[Found]:
    """Yield a shared store that loses records, or that two connections do not share."""
    setup = online.setup
    if not setup.state.store.shared:
        return
    name, place = secrets.token_hex(8), setting("store_uri")
    try:
        other = open_store(setup.settings.store_uri, setup.settings.store_password, setup.state.clock)
        first, second = setup.state.store.add(_SPACE, name, 5), other.add(_SPACE, name, 5)
    except DependencyUnavailable as error:
        yield Found(place, error.reason)
        return
    if not first or second:
        yield Found(place, "a record that one connection writes to the store is not visible to another connection")


def limit_store(online: Online) -> Iterator[Found]:
    """Yield a limit store that does not respond."""
    counters = online.setup.state.limiter.counters
    if not counters.shared:
        return
    try:
        counters.peek(b"check", RuleSet([Rule("check", Kind.FIXED, 1, 1.0)]), (0,))
    except DependencyUnavailable as error:
        yield Found(setting("store_uri"), f"the limit store: {error.reason}")


def key_store(online: Online) -> Iterator[Found]:
    """Yield a finding if requests cannot use the API keys.

    A missing file is an empty list for commands, but an error for requests.
    """
    keys = online.setup.state.keys
    try:
        _ = online.setup.keys
        if keys is not None:
            keys.get(_SPACE)
    except DependencyUnavailable as error:
        yield Found(setting("api_keys"), error.reason)


def issuer_keys(online: Online) -> Iterator[Found]:
    """Yield the issuers whose keys cannot be fetched or used."""
    for probe in online.issuers:
        if probe.keys:
            what = f"the keys of {probe.config.issuer} cannot be used: {probe.keys}"
            yield Found(Where("issuer", probe.config.issuer), what)


def introspection(online: Online) -> Iterator[Found]:
    """Yield the issuers whose tokens cannot be introspected."""
    for probe in online.issuers:
        if probe.introspection:
            what = f"tokens of {probe.config.issuer} cannot be introspected: {probe.introspection}"
            yield Found(Where("issuer", probe.config.issuer), what)


def unreadable_secrets(online: Online) -> Iterator[Found]:
    """Yield the secrets that cannot be read, because Vault is down or a file is missing, for example."""
    for name, ring in online.setup.secrets:
        try:
            ring.read()
        except ValueError as error:
            yield Found(Where("setting", name), str(error))


def audit_log(online: Online) -> Iterator[Found]:
    """Yield an audit log that cannot be written; otherwise write a record of this check."""
    audit = online.setup.state.audit
    reason = audit.event("doctor.online", {}) if audit is not None else None
    if reason is not None:
        yield Found(setting("audit_log"), reason)


CHECKS = (
    Check(
        "SML801",
        Severity.ERROR,
        "The shared store does not work",
        "Credentials cannot be revoked, and requests are rejected with 503.",
        'SECURE_ML_STORE_URI = "rediss://stores.example.com:6379/0", reachable from here',
        store,
    ),
    Check(
        "SML802",
        Severity.ERROR,
        "The limit store does not respond",
        "Depending on SECURE_ML_LIMIT_OUTAGE, each worker counts separately, limits are off, or requests get 503.",
        'SECURE_ML_STORE_URI = "rediss://stores.example.com:6379/0", reachable from here',
        limit_store,
    ),
    Check(
        "SML803",
        Severity.ERROR,
        "API keys cannot be read",
        "Requests with an API key are rejected with 503.",
        'SECURE_ML_API_KEYS = "/var/lib/model/keys.json"',
        key_store,
    ),
    Check(
        "SML804",
        Severity.ERROR,
        "The keys of an issuer cannot be used",
        "Its tokens are rejected with 503.",
        '"issuer", "jwks_uri", "ca_file" or "private_network" of its entry, as the message says',
        issuer_keys,
    ),
    Check(
        "SML805",
        Severity.ERROR,
        "Tokens cannot be introspected",
        "Opaque tokens are rejected with 503.",
        '"introspection_uri", "client_id" and "client_secret" as registered at the issuer',
        introspection,
    ),
    Check(
        "SML806",
        Severity.ERROR,
        "A secret cannot be read",
        "Requests that need it are rejected with 503.",
        '"env:NAME", "file:/path" or "vault:mount/path#field" that exists here',
        unreadable_secrets,
    ),
    Check(
        "SML807",
        Severity.ERROR,
        "The audit log cannot be written",
        "Records are lost; with SECURE_ML_AUDIT_REQUIRED, every request gets 503.",
        "flask secure-ml audit init DIRECTORY, or disk space and permissions for the file or directory in the message",
        audit_log,
    ),
)
