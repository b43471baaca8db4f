"""The setup that offline checks read: the app, its settings, routes and keys, and the server's configuration."""

from __future__ import annotations

import ast
import inspect
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flask import Flask

from ..authentication.api_keys.key import KeyRecord
from ..authentication.guard import AuthenticationGuard
from ..config import Settings, key_of
from ..errors import DependencyUnavailable
from ..limits.setup import limit_store_uri
from ..policy.matching import OWN_ENDPOINTS, is_automatic_options
from ..policy.policy import Policy
from ..secrets import SecretRing
from ..state import AppState
from .finding import Where

_SECRETS = (
    "api_key_pepper",
    "dpop_nonce_secret",
    "alert_webhook_secret",
    "store_password",
    "sentry_dsn",
    "metrics_token",
)

_CONFIGURATION = "flask_secure_ml.deploy.gunicorn"
_SERVE = "SECURE_ML_SERVE_"
_DEFAULT_WORKERS = 2

CONFIG_FILE = "gunicorn.conf.py"
"""The configuration file that gunicorn reads from its directory by default."""


class Route(NamedTuple):
    """One route and the methods that share a policy.

    :param source: where the policy is declared, as ``flask secure-ml routes`` prints it.
    """

    rule: str
    endpoint: str
    methods: tuple[str, ...]
    policy: Policy
    source: str

    @property
    def own(self) -> bool:
        """Return True if this package adds the route."""
        return self.endpoint.startswith(OWN_ENDPOINTS)


@dataclass(frozen=True)
class Setup:
    """The subject of offline checks.

    :param environ: the environment of the server.
    :param folder: the directory that the server is started in.
    :param described: this machine has neither the secrets nor the files and stores of the server.
    """

    app: Flask
    state: AppState
    environ: Mapping[str, str]
    folder: Path
    described: bool = False

    @property
    def settings(self) -> Settings:
        """The settings of the app."""
        return self.state.settings

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.state.clock.now()

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The routes of the app, with one entry for methods that share a policy."""
        grouped: dict[tuple[str, str, int], tuple[list[str], Policy, str]] = {}
        for rule, method, found in self.state.policies.declared():
            if not is_automatic_options(rule, method):
                name = (rule.rule, rule.endpoint, id(found.policy))
                grouped.setdefault(name, ([], found.policy, found.source))[0].append(method)
        return tuple(
            Route(rule, endpoint, tuple(methods), policy, source)
            for (rule, endpoint, _), (methods, policy, source) in grouped.items()
        )

    def at(self, route: Route, methods: tuple[str, ...] = ()) -> Where:
        """Return the location of a route, with the line of its view if it is known.

        :param methods: the methods to name; all methods of the route by default.
        """
        shown = methods or tuple(each for each in route.methods if each != "HEAD")
        view: Any = inspect.unwrap(self.app.view_functions[route.endpoint])
        code = getattr(view, "__code__", None)
        file, line = ("", 0) if code is None else (code.co_filename, code.co_firstlineno)
        return Where("route", f"{','.join(shown)} {route.rule}", file, line)

    @property
    def keys(self) -> tuple[KeyRecord, ...]:
        """All API keys; none if they are on another machine.

        :raises DependencyUnavailable: the store cannot be read; the error is cached.
        """
        if isinstance(self._keys, DependencyUnavailable):
            raise self._keys
        return self._keys

    @cached_property
    def _keys(self) -> tuple[KeyRecord, ...] | DependencyUnavailable:
        try:
            return self.state.keys.list() if self.state.keys and not self.described else ()
        except DependencyUnavailable as error:
            return error

    @property
    def shares_state(self) -> bool:
        """Return True if workers share their state; an app that is only described has its state in memory."""
        return not self.settings.store_uri.startswith("memory") if self.described else self.state.store.shared

    @property
    def usable_keys(self) -> Iterator[KeyRecord]:
        """Yield the API keys that are valid now."""
        return (each for each in self.keys if each.status == "active" and not each.expired(self.now))

    @property
    def declared_authenticators(self) -> bool:
        """Return True if the app declares authenticators; the checks do not know their principals."""
        guards = (each for each in self.state.pipeline.guards if isinstance(each, AuthenticationGuard))
        found = (each for guard in guards for each in guard.authenticators)
        return any(not type(each).__module__.startswith("flask_secure_ml.") for each in found)

    @property
    def limit_store(self) -> str:
        """The URI of the limit store."""
        return limit_store_uri(self.app.config, self.settings, own_limiter="limiter" in self.app.extensions)

    @property
    def secrets(self) -> Iterator[tuple[str, SecretRing]]:
        """Yield each secret that the settings refer to, with the name of its setting."""
        for name in _SECRETS:
            ring: SecretRing | None = getattr(self.settings, name)
            if ring is not None:
                yield key_of(name), ring
        for number, issuer in enumerate(self.settings.token_issuers):
            for option in ("secret", "client_secret", "jwks_token"):
                ring = getattr(issuer, option)
                if ring is not None:
                    yield f"SECURE_ML_TOKEN_ISSUERS[{number}].{option}", ring

    @property
    def workers(self) -> tuple[int, str]:
        """The number of workers on all machines, and where it is configured; 0 if it is not."""
        everywhere = self.settings.limit_workers
        return (everywhere, "SECURE_ML_LIMIT_WORKERS") if everywhere else self.workers_here

    @cached_property
    def workers_here(self) -> tuple[int, str]:
        """The number of workers on this machine, and where it is configured; 0 if it is not."""
        for count, source in (
            (_option(self.environ.get("GUNICORN_CMD_ARGS", "")), "GUNICORN_CMD_ARGS"),
            (_assigned(self.folder / CONFIG_FILE), CONFIG_FILE),
            (_number(self.environ.get(f"{_SERVE}WORKERS", "")), f"{_SERVE}WORKERS"),
            (_number(self.environ.get("WEB_CONCURRENCY", "")), "WEB_CONCURRENCY"),
        ):
            if count:
                return count, source
        return (_DEFAULT_WORKERS, _CONFIGURATION) if self.uses_deploy_configuration else (0, "")

    @property
    def uses_deploy_configuration(self) -> bool:
        """Return True if gunicorn uses the configuration of this package, or its hooks."""
        with suppress(OSError, UnicodeDecodeError):
            if _CONFIGURATION in (self.folder / CONFIG_FILE).read_text(encoding="utf-8"):
                return True
        is_named = _CONFIGURATION in self.environ.get("GUNICORN_CMD_ARGS", "")
        return is_named or any(name.startswith(_SERVE) for name in self.environ)

    @cached_property
    def server_timeout(self) -> tuple[int, str]:
        """The timeout of gunicorn in seconds, and where it is configured; 0 if it is not."""
        assigned = _value(self.folder / CONFIG_FILE, "timeout")
        for seconds, source in (
            (_number(_word(self.environ.get("GUNICORN_CMD_ARGS", ""), "--timeout", "-t")), "GUNICORN_CMD_ARGS"),
            (assigned if isinstance(assigned, int) else 0, CONFIG_FILE),
            (_number(self.environ.get(f"{_SERVE}TIMEOUT", "")), f"{_SERVE}TIMEOUT"),
        ):
            if seconds:
                return seconds, source
        return 0, ""

    @cached_property
    def server_certificate(self) -> str:
        """The path of the server's certificate in the configuration of gunicorn or the app; empty if there is none."""
        assigned = _value(self.folder / CONFIG_FILE, "certfile")
        variable = self.environ.get(f"{_SERVE}CERTIFICATE", "").removeprefix("file:")
        given = (
            _word(self.environ.get("GUNICORN_CMD_ARGS", ""), "--certfile"),
            assigned if isinstance(assigned, str) else "",
            # A reference to the PEM itself is no path.
            "" if variable.startswith(("env:", "vault:")) else variable,
            self.settings.server_certificate or "",
        )
        return next(filter(None, given), "")


def setup_of(app: Flask, state: AppState, *, described: bool = False) -> Setup:
    """Return the setup of an app in the environment and directory of this process.

    :param described: the app was created only to be described.
    """
    return Setup(app, state, os.environ, Path.cwd(), described)


def _option(arguments: str) -> int:
    """Return the number of workers in gunicorn's command line; 0 if it has none."""
    return _number(_word(arguments, "--workers", "-w"))


def _word(arguments: str, name: str, short: str = "") -> str:
    """Return the value of a command-line option, or an empty string."""
    words: list[str] = []
    with suppress(ValueError):
        words = shlex.split(arguments)
    for word, after in pairwise([*words, ""]):
        if word in {name, short}:
            return after
        for prefix in (f"{name}=", short):
            if prefix and word.startswith(prefix):
                return word.removeprefix(prefix)
    return ""


def _assigned(path: Path) -> int:
    """Return the number of workers in a configuration file; 0 if it has none."""
    found = _value(path, "workers")
    # A computed number, for example from the number of processors, is more than one on any server.
    return found if isinstance(found, int) else 2 * (found is COMPUTED)


COMPUTED = object()
"""Placeholder for the value of an expression, which is not evaluated."""


def _value(path: Path, name: str) -> object:
    """Return the constant that a configuration file assigns to a name, without running the file."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    found: object = None
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == name for each in node.targets
        ):
            found = node.value.value if isinstance(node.value, ast.Constant) else COMPUTED
    return found


def _number(value: str) -> int:
    return int(value) if value.isdecimal() and value.isascii() else 0
