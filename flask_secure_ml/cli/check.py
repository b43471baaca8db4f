"""``flask secure-ml check``: errors and warnings about a setup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import click
from flask import Flask
from flask.cli import with_appcontext

from ..config import Settings
from ..config.audit import OFF
from ..config.cross_checks import EXAMPLE
from ..config.issuers import LOOPBACK, MAX_TOKEN_BYTES, IssuerConfig
from ..config.providers import PROVIDERS
from ..errors import ConfigError
from ..inputs.unseen_changes import unseen_changes
from ..limits.setup import limit_store_uri
from ..state import AppState
from ..transport.beneath import around, layer_name
from ..transport.gate import opaque_layers, outer_problems
from .context import command_app, command_state, json_option, mistakes_as_messages

SHORTEST_KEY = 16
"""How many bytes ``SECRET_KEY`` should have at least."""

UNSEEN = (
    "note: middleware that holds the app under another name, such as application = DispatcherMiddleware(app, ...), "
    "cannot be seen from here and responds without the guards; let the server load the app itself"
)


@click.command()
@json_option
@with_appcontext
def check(as_json: bool) -> None:
    """Check the policies against the routes, and warn of insecure settings.

    Exit code 1 for an error; warnings alone exit with 0.
    """
    app, state = command_app(), command_state()
    problems = [*state.policies.problems(), *outer_problems(app, state.settings.outer_middleware)]
    if problems:
        raise ConfigError(problems)
    with mistakes_as_messages():
        warnings = list(findings(app, state))
    if as_json:
        click.echo(json.dumps({"warnings": warnings}))
        return
    for warning in warnings:
        click.echo(f"warning: {warning}")
    click.echo(UNSEEN)
    click.echo(f"warnings: {len(warnings)}" if warnings else "ok: no warnings")


def findings(app: Flask, state: AppState) -> Iterator[str]:
    """Yield a sentence for each setting that is allowed but insecure."""
    settings = state.settings
    if app.debug:
        yield "debug is on: the interactive debugger runs code for whoever reaches it"
    yield from _clear_text(app, settings)
    others = settings.token_issuers or settings.mtls_clients or settings.session_login
    if state.keys is None and not others:
        yield (
            "no API keys, issuers or client certificates are configured: every route that is not public responds "
            "with 401"
        )
    if not settings.failed_auth_limits:
        yield "SECURE_ML_FAILED_AUTH_LIMITS is empty: nothing bounds the introspections and guesses of a caller"
    if settings.audit_log != OFF and not settings.audit_checkpoint_sinks:
        yield (
            "SECURE_ML_AUDIT_CHECKPOINT_SINKS is empty: whoever takes over the app can replace the audit log as a whole"
        )
    yield from _issuers(settings)
    yield from _stores(app, state)
    yield from _plans(state)
    yield from _browsers(app, settings)
    if settings.session_login is not None:
        yield from _session(app)
    for layer in around(app):
        yield f"{layer_name(layer)} is around the app (SECURE_ML_OUTER_MIDDLEWARE): its own responses are not guarded"
    yield from opaque_layers(state.beneath, settings.mounts)
    yield from unseen_changes(settings.policies)


def _clear_text(app: Flask, settings: Settings) -> Iterator[str]:
    if not settings.require_tls:
        yield "SECURE_ML_REQUIRE_TLS is off: credentials cross the network in clear text"
    if not app.config["SESSION_COOKIE_SECURE"]:
        yield "SESSION_COOKIE_SECURE is off: the session cookie is sent in clear text too"


def _stores(app: Flask, state: AppState) -> Iterator[str]:
    settings = state.settings
    parts = urlsplit(settings.store_uri)
    if parts.scheme in {"redis", "valkey"} and parts.hostname not in LOOPBACK:
        yield "SECURE_ML_STORE_URI reaches another machine without TLS; begin it with rediss: or valkeys:"
    if not state.store.shared:
        yield "SECURE_ML_STORE_URI is memory: nothing can be revoked by command, and workers share no state"
        if settings.dpop != "off":
            yield "a DPoP proof that one worker has seen can be replayed at another: set SECURE_ML_STORE_URI"
    if limit_store_uri(app.config, settings).startswith("memory"):
        yield "limits are counted in memory: each worker counts for itself; set SECURE_ML_STORE_URI"
    yield from _open_limits(settings)


def _open_limits(settings: Settings) -> Iterator[str]:
    """Yield a warning for limits that nobody enforces while the store is down."""
    if settings.limit_outage == "open":
        yield "SECURE_ML_LIMIT_OUTAGE is open: while the store is down nothing is limited"
    limits = [limit for plan in settings.plans.values() for limit in (*plan.requests, *plan.quotas)]
    limits += [limit for policy in settings.policies.values() for limit in policy.limits]
    for limit in dict.fromkeys(limit for limit in limits if limit.outage == "open"):
        yield f"the limit {limit} has the outage policy open: while the store is down it is lifted"


def _issuers(settings: Settings) -> Iterator[str]:
    for issuer in settings.token_issuers:
        if issuer.insecure_http:
            yield f"{issuer.issuer} is reached without TLS (insecure_http)"
        if issuer.private_network:
            yield (
                f"{issuer.issuer} may have a private IP address (private_network): a changed DNS entry reaches your "
                "network"
            )
        if issuer.proxy:
            yield f"{issuer.issuer} is reached through {issuer.proxy} (proxy), which resolves its names unchecked"
        preset = PROVIDERS.get(issuer.provider or "")
        if preset and preset.callers and not issuer.required_claims:
            yield f"{preset.callers} can get a token of {issuer.issuer}: name who may call in required_claims"
        if relaxed := list(_relaxed(issuer)):
            source = f"; provider {issuer.provider}" if issuer.provider else ""
            yield f"tokens of {issuer.issuer} {'; '.join(relaxed)}{source}"


_RELAXED = {
    "omits": "may lack {}",
    "header_types": "may have the header typ {}",
    "token_types": "may have token_type {}",
    "id_token_claims": "may have {} as ID tokens do",
    "audience_claims": "have their audience in {}",
    "scope_claims": "have scopes in {}",
    "role_claims": "have roles in {}",
    "client_claims": "have their client in {}",
    "user_claims": "have their subject in {}",
}


_STRICT = IssuerConfig("", "")


def _relaxed(issuer: IssuerConfig) -> Iterator[str]:
    """Yield each option of an issuer by which its tokens may differ from RFC 9068."""
    for name, sentence in _RELAXED.items():
        value = getattr(issuer, name)
        if value != getattr(_STRICT, name):
            yield f"{sentence.format(', '.join(sorted(value)))} ({name})"
    if len(issuer.audiences) > 1:
        yield f"may be for any of {', '.join(issuer.audiences)} (audience)"
    if issuer.max_token_bytes > MAX_TOKEN_BYTES:
        yield f"may have {issuer.max_token_bytes} bytes (max_token_bytes)"


def _plans(state: AppState) -> Iterator[str]:
    for name, plan in state.settings.plans.items():
        if not plan.requests:
            yield f"the plan {name!r} has no request limit"
    for record in state.keys.list() if state.keys else ():
        if record.plan not in state.settings.plans:
            yield f"the API key {record.id} has the plan {record.plan!r}, which is not in SECURE_ML_PLANS"


def _browsers(app: Flask, settings: Settings) -> Iterator[str]:
    if any(_is_of_flask_cors(hook) for hooks in app.after_request_funcs.values() for hook in hooks):
        yield "flask-cors gets no preflight past the guards, which respond with 401: remove it, and set SECURE_ML_CORS"
    decorated = sorted(name for name, view in app.view_functions.items() if _is_of_flask_cors(view))
    if decorated:
        yield (
            f"cross_origin of flask-cors is on {', '.join(decorated)} and gets no preflight past the guards: write "
            "cors= in the policy instead"
        )
    for origin in sorted(settings.cors.origins if settings.cors else ()):
        if origin.startswith("http:") and urlsplit(origin).hostname not in LOOPBACK:
            yield f"SECURE_ML_CORS allows {origin}, whose pages anybody on their network can change"


def _session(app: Flask) -> Iterator[str]:
    """Yield what is insecure about a session that is a credential."""
    config = app.config
    keys = [app.secret_key or "", *(config.get("SECRET_KEY_FALLBACKS") or ())]
    if any(len(key.encode() if isinstance(key, str) else key) < SHORTEST_KEY for key in keys if key):
        yield (
            f"SECRET_KEY or one of its fallbacks has less than {SHORTEST_KEY} bytes: whoever guesses it can log in as "
            f"anybody; make one with {EXAMPLE}"
        )
    if str(config["SESSION_COOKIE_SAMESITE"]).lower() == "none":
        yield "SESSION_COOKIE_SAMESITE is None: browsers send the session with requests of every other site; use Lax"
    if not config["SESSION_COOKIE_HTTPONLY"]:
        yield "SESSION_COOKIE_HTTPONLY is off: a script that is injected into a page can read the session"
    if config["SESSION_COOKIE_DOMAIN"]:
        yield "SESSION_COOKIE_DOMAIN is set: every subdomain gets the session"


def _is_of_flask_cors(function: Any) -> bool:
    """Return True if a function, or one that it wraps, is defined in flask-cors."""
    while function is not None:
        if str(getattr(function, "__globals__", {}).get("__name__", "")).startswith("flask_cors."):
            return True
        function = getattr(function, "__wrapped__", None)
    return False
