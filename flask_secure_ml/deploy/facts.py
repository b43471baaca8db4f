"""The input of the generators: the routes of an app as proxies match them, its settings and deployment options."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flask import Flask
from werkzeug.routing import Rule

from ..config import PREFIX, Settings
from ..config.deployment import DeployOptions
from ..policy.matching import is_automatic_options
from ..policy.policy import Policy
from ..state import state_of
from .destinations import Destination, destinations_of
from .environment import environment_variables, strings, withheld_settings

_VARIABLE = re.compile(r"<(?:(?P<converter>[A-Za-z_]\w*)(?:\([^<>]*\))?:)?(?P<name>[A-Za-z_]\w*)>")
_ANY_PATH = ".+"
_ONE_SEGMENT = "[^/]+"
# RE2, which Envoy uses, does not support look-around and backreferences.
_NOT_IN_RE2 = re.compile(r"\(\?[=!<P]|\\[1-9]")
_FRESH = re.compile(r"(?:^|,)\s*(s-maxage|max-age)=(\d{1,9})\s*(?=,|$)")
_TREE = "/*"
_ALL_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_SCHEMES = ("env", "file", "vault")
# Its file:/path is an output file, not a reference to a secret.
_WRITTEN = "SECURE_ML_AUDIT_CHECKPOINT_SINKS"


@dataclass(frozen=True)
class RouteFacts:
    """One URL rule, or a path of a mounted app, and the combination of its policies.

    :param rule: the rule of Werkzeug, such as ``/users/<int:user>``; it ends with ``/<path:_>`` for all paths of a
        mounted app.
    :param pattern: an anchored regular expression of the paths, in the common syntax of RE2 and PCRE.
    :param methods: the methods with a view, sorted, without the automatic ``OPTIONS``.
    :param public: no method requires a credential.
    :param clear_text: at least one method may be called without TLS.
    :param max_body_bytes: the maximum body size of all methods.
    :param cache_seconds: the lifetime of a response in shared caches; 0 unless every GET of the rule is public and
        its policy declares ``Cache-Control: public`` with a max-age.
    :param stream: the response is streamed without buffering.
    """

    rule: str
    pattern: str
    methods: tuple[str, ...]
    public: bool
    clear_text: bool
    max_body_bytes: int
    cache_seconds: int
    stream: bool

    @property
    def literal(self) -> str | None:
        """The path, if the rule has no variable."""
        return None if "<" in self.rule else self.rule


@dataclass(frozen=True)
class SecretFacts:
    """A reference to a secret in the configuration, never the secret itself.

    :param setting: the key of the setting.
    :param scheme: ``env``, ``file`` or ``vault``.
    :param location: the name of the variable, the path of the file, or ``mount/path#field``.
    """

    setting: str
    scheme: str
    location: str


@dataclass(frozen=True)
class Facts:
    """The input of the generators. All members are sorted, so that the output is deterministic.

    :param options: the deployment options of ``SECURE_ML_DEPLOY``.
    :param settings: the settings of the app.
    :param routes: the URL rules, literal ones first.
    :param secrets: the references to secrets in the configuration.
    :param destinations: the servers that the app connects to, as far as the configuration contains them.
    :param environment: the settings of the app as environment variables for ``app.config.from_prefixed_env()``,
        without those that may contain a secret.
    :param withheld: the keys of the settings that may contain a secret.
    :param root: the path that the app is mounted at, from ``APPLICATION_ROOT``.
    """

    options: DeployOptions
    settings: Settings
    routes: tuple[RouteFacts, ...]
    secrets: tuple[SecretFacts, ...]
    destinations: tuple[Destination, ...]
    environment: Mapping[str, str]
    withheld: tuple[str, ...] = ()
    root: str = "/"

    @property
    def host(self) -> str:
        """The first public name of the service."""
        return self.options.hosts[0]

    @property
    def probe_host(self) -> str:
        """The host in probe requests: the first name without a wildcard, or one that matches the first pattern."""
        names = (name for name in self.options.hosts if not name.startswith("*"))
        return next(names, self.host.replace("*", "probe", 1))

    @property
    def behind_proxy(self) -> bool:
        """Return True if the app trusts a proxy."""
        trusted = self.settings.trusted_proxies
        return trusted.unix or bool(trusted.networks)

    @property
    def max_body_bytes(self) -> int:
        """The maximum body size of all routes."""
        return max((route.max_body_bytes for route in self.routes), default=self.settings.max_body_bytes)

    @property
    def upstream_name(self) -> str:
        """The name in the certificates of the app servers."""
        return self.options.upstream_name or self.host

    @property
    def live_path(self) -> str | None:
        """The path of the liveness probe."""
        return self.settings.probes.live if self.settings.probes else None

    @property
    def ready_path(self) -> str | None:
        """The path of the readiness probe."""
        return self.settings.probes.ready if self.settings.probes else None

    @property
    def health_path(self) -> str | None:
        """The percent-encoded health check path: the readiness probe, or a public route without variables."""
        public = (route.rule for route in self.routes if route.public and route.literal and "GET" in route.methods)
        found = self.ready_path or next(public, None)
        return None if found is None else quote(found)


def facts_of(app: Flask) -> Facts:
    """Return the facts of an app.

    :raises RuntimeError: the app is not protected.
    :raises ConfigError: a policy does not match the routes.
    """
    state = state_of(app)
    state.policies.ensure_checked()
    settings = state.settings
    options = settings.deploy or DeployOptions()
    withheld = tuple(withheld_settings(app.config, settings))
    return Facts(
        options=options,
        settings=settings,
        routes=tuple(_routes(app, settings, options.streams)),
        secrets=tuple(_secrets(app.config)),
        destinations=destinations_of(app.config, settings, own_limiter="limiter" in app.extensions),
        environment=dict(environment_variables(app.config, withheld)),
        withheld=withheld,
        root=str(app.config["APPLICATION_ROOT"] or "/"),
    )


def _routes(app: Flask, settings: Settings, streams: Collection[str]) -> Iterator[RouteFacts]:
    declared: dict[str, list[tuple[Rule, str, Policy]]] = {}
    for rule, method, policy in state_of(app).policies.routes():
        if not is_automatic_options(rule, method):
            declared.setdefault(rule.rule, []).append((rule, method, policy))
    found = [_route(text, declared[text], settings, text in streams) for text in declared]
    found += [each for each in _mounted(app, settings, streams) if each.rule not in declared]
    yield from sorted(found, key=lambda each: ("<" in each.rule, each.rule))


def _mounted(app: Flask, settings: Settings, streams: Collection[str]) -> Iterator[RouteFacts]:
    """Yield the paths of mounted apps that have a policy; their responses are never cached."""
    declared: dict[str, list[tuple[tuple[str, ...], Policy]]] = {}
    for target, methods, policy in state_of(app).policies.mounted():
        declared.setdefault(target, []).append((methods, policy))
    for target, found in sorted(declared.items()):
        root = target.removesuffix(_TREE)
        sizes = [policy.caps.max_body_bytes for _, policy in found]
        yield RouteFacts(
            rule=target if root == target else f"{root}/<path:_>",
            pattern=f"^{_escaped(root)}$" if root == target else f"^{_escaped(root)}(?:/.*)?$",
            methods=tuple(sorted({each for methods, _ in found for each in methods or _ALL_METHODS})),
            public=all(policy.public for _, policy in found),
            clear_text=any(policy.tls == "optional" for _, policy in found),
            max_body_bytes=max(settings.max_body_bytes if size is None else size for size in sizes),
            cache_seconds=0,
            stream=target in streams,
        )


def _route(text: str, found: list[tuple[Rule, str, Policy]], settings: Settings, stream: bool) -> RouteFacts:
    policies = [policy for _, _, policy in found]
    sizes = [policy.caps.max_body_bytes for policy in policies]
    readable = [policy for _, method, policy in found if method in {"GET", "HEAD"}]
    return RouteFacts(
        rule=text,
        pattern=f"^{_pattern(found[0][0])}$",
        methods=tuple(sorted({method for _, method, _ in found})),
        public=all(policy.public for policy in policies),
        clear_text=any(policy.tls == "optional" for policy in policies),
        max_body_bytes=max(settings.max_body_bytes if size is None else size for size in sizes),
        cache_seconds=min(map(_cache_seconds, readable), default=0),
        stream=stream,
    )


def _pattern(rule: Rule) -> str:
    parts: list[str] = []
    end = 0
    for match in _VARIABLE.finditer(rule.rule):
        parts += [_escaped(rule.rule[end : match.start()]), _variable(rule, match["converter"], match["name"])]
        end = match.end()
    rest = rule.rule[end:]
    # Flask redirects a path without the trailing slash.
    slash = rest.endswith("/") and len(rule.rule) > 1
    parts.append(_escaped(rest[:-1]) + "/?" if slash else _escaped(rest))
    return "".join(parts)


def _escaped(literal: str) -> str:
    """Return a literal for a regular expression; re.escape also escapes characters that RE2 rejects escaped."""
    return re.sub(r"([.^$*+?()\[\]{}|\\])", r"\\\1", literal)


def _variable(rule: Rule, converter: str | None, name: str) -> str:
    if converter == "path":
        return _ANY_PATH
    # Only the bound rule has the converter with its arguments.
    bound = getattr(rule, "_converters", {}).get(name)
    regex = str(getattr(bound, "regex", _ONE_SEGMENT))
    return _ANY_PATH if _NOT_IN_RE2.search(regex) else f"(?:{regex})"


def _cache_seconds(policy: Policy) -> int:
    """Return the lifetime of a response in shared caches (RFC 9111 section 5.2.2)."""
    values = dict(policy.headers.values) if policy.headers is not None and policy.public else {}
    declared = (values.get("Cache-Control") or "").lower()
    words = {word.strip() for word in declared.split(",")}
    if "public" not in words or words & {"no-store", "no-cache", "private"}:
        return 0
    ages = {name: int(seconds) for name, seconds in _FRESH.findall(declared)}
    return ages.get("s-maxage", ages.get("max-age", 0))


def _secrets(config: Mapping[str, Any]) -> Iterator[SecretFacts]:
    found = {
        SecretFacts(key, *value.split(":", 1))
        for key, given in config.items()
        if key.startswith(PREFIX) and key != _WRITTEN
        for value in strings(given)
        if value.partition(":")[0] in _SCHEMES and value.partition(":")[2]
    }
    yield from sorted(found, key=lambda each: (each.setting, each.scheme, each.location))
