"""Finds the policy of a request, and checks policies against the routes of the app."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from flask import Flask, Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter, RequestRedirect, Rule

from ..errors import ConfigError
from .paths import canonical, spellings
from .patterns import ConfiguredPolicies, Named
from .policy import MARK, Policy
from .views import called, method_of, policy_of, takers, takes_payload

if TYPE_CHECKING:
    from flask.sansio.blueprints import Blueprint as AnyBlueprint


OWN_ENDPOINTS = "secure_ml_"
"""The prefix of the endpoints that this extension adds."""

DEFAULT = "default"
CODE = "code"


class Resolved(NamedTuple):
    """A policy and its declaration: the name in ``SECURE_ML_POLICIES``, ``code`` or ``default``."""

    policy: Policy
    source: str


class PolicyTable:
    """Finds the policy of a route: configuration, then method, view, class, blueprint, then the default.

    Policies that are configured for several routes apply to routes without their own policy: see :mod:`.patterns`.

    :param configured: policies by name.
    :param owner_hook: whether ``SecureML(owner=...)`` was given, which policies with ``owner=True`` need.
    :param cors: whether ``SECURE_ML_CORS`` is set, which policies with ``cors`` need.
    :param mounts: the paths of apps that are mounted beneath the guards.
    :param plain: whether only Flask is beneath the guards.
    """

    def __init__(
        self,
        app: Flask,
        configured: Mapping[str, Policy],
        *,
        owner_hook: bool = False,
        cors: bool = False,
        mounts: Collection[str] = (),
        plain: bool = True,
    ) -> None:
        self._app = app
        self._configured = ConfiguredPolicies(configured)
        self._owner_hook = owner_hook
        self._cors = cors
        self._mounts = mounts
        self._plain = plain
        self._default = Resolved(Policy(), DEFAULT)
        self._checked = False
        self._found: dict[tuple[str, str, str, bool], Resolved | None] = {}
        self._stripped: dict[str, Policy] = {}

    def find(self, rule: Rule | None, method: str, path: str = "") -> Policy:
        """Return the policy of a request to Flask.

        If no view runs, the policy has neither ``body`` nor ``cost``, for all guards.

        :param rule: the matching rule; None for an unknown URL or a wrong method.
        :param path: the path of the URL.
        """
        return self.resolve(rule, method, path).policy

    def resolve(self, rule: Rule | None, method: str, path: str = "") -> Resolved:
        """Return the policy of a request to Flask, and its declaration."""
        if rule is not None:
            found = self._cached(rule, method)
            if found is not None:
                return found
        return self._wide(rule, method, path) if self._configured.has_wide else self._default

    def beneath(self, path: str, rule: Rule | None, method: str) -> tuple[Policy, str | None]:
        """Return the policy of a request to the layers beneath the guards.

        The second value is the configured name of its path, or None. A public policy does not apply to other spellings
        of its path, which the layers beneath may interpret differently.

        :param path: the path in WSGI.
        :param rule: the matching rule; None as for :meth:`find`, and for mounted apps.
        """
        for spelling in spellings(path):
            meant = canonical(spelling)
            if found := self._configured.of_path(meant, method):
                is_other = found.policy.public and meant != spelling
                return (self._default.policy, None) if is_other else (found.policy, found.name)
        return self.find(rule, method), None

    def redirected(self, request: Request) -> Policy | None:
        """Return the policy for Flask's redirect to the same path with a slash, if its target is a public route.

        No view runs, so it has neither ``body`` nor ``cost``. It is None for any other redirect.
        """
        redirect = request.routing_exception
        if not isinstance(redirect, RequestRedirect):
            return None
        target = f"{request.path}/"
        if unquote(urlsplit(redirect.new_url).path) != f"{request.script_root}{target}":
            return None
        adapter = self._app.create_url_adapter(request)
        try:
            rule, _ = cast("MapAdapter", adapter).match(target, request.method, return_rule=True)
        except HTTPException:
            return None
        policy = self.find(rule, request.method, target)
        if not policy.public or policy.body is None:
            return policy if policy.public else None
        if rule.methods is None:
            return _without_payload(policy)
        # One object for each policy, because a request is checked again if its policy is another object.
        return self._stripped.setdefault(f"redirect {rule.endpoint} {request.method}", _without_payload(policy))

    def ensure_checked(self) -> None:
        """Check the policies once, at the first request, when all routes are registered.

        A missing owner hook is only reported by :meth:`problems`: its routes respond with 403, and others are not
        affected.

        :raises ConfigError: a policy does not fit the routes; raised for every request until that is fixed.
        """
        if not self._checked:
            _raise_any(self._misfits())
            self._checked = True

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each policy that does not fit the current routes.

        These are names without a route, routes with two policies, views that cannot take their payload, and routes that
        reject all callers because the owner hook is missing.
        """
        yield from self._misfits()
        yield from self._without_owner_hook()

    def routes(self) -> Iterator[tuple[Rule, str, Policy]]:
        """Yield each rule, method and policy of the app."""
        for rule, method, found in self.declared():
            yield rule, method, found.policy

    def mounted(self) -> Iterator[tuple[str, tuple[str, ...], Policy]]:
        """Yield the paths of mounted apps that have a policy, its methods and the policy."""
        return self._configured.mounted(self._mounts)

    def declared(self) -> Iterator[tuple[Rule, str, Resolved]]:
        """Yield each rule and method of the app, with its policy and the declaration of that."""
        for rule in self._app.url_map.iter_rules():
            for method in sorted(rule.methods or ()):
                yield rule, method, self.resolve(rule, method, rule.rule)

    def _cached(self, rule: Rule, method: str) -> Resolved | None:
        if rule.methods is None:
            # The rule accepts any method, and a client could send any number of them.
            return self._own(rule, method)
        key = (rule.rule, rule.endpoint, method, is_automatic_options(rule, method))
        return self._found[key] if key in self._found else self._found.setdefault(key, self._own(rule, method))

    def _own(self, rule: Rule, method: str) -> Resolved | None:
        """Return the route's own policy, or None."""
        configured = self._configured.of_rule(rule, method)
        if configured is not None:
            return self._for(rule, method, configured)
        found = self._from_code(rule, method)
        return None if found is None else self._for(rule, method, Named(CODE, found))

    def _wide(self, rule: Rule | None, method: str, path: str) -> Resolved:
        blueprints = () if rule is None else self._blueprint_names(rule.endpoint)
        found = self._configured.wide(path, blueprints, method)
        return self._default if found is None else self._for(rule, method, found)

    def _for(self, rule: Rule | None, method: str, found: Named) -> Resolved:
        if found.policy.body is None or rule is None or not is_automatic_options(rule, method):
            return Resolved(found.policy, found.name)
        # One object for each name, because a request is checked again if its policy is another object.
        name = f"{found.name} {rule.endpoint}" if found.name == CODE else found.name
        return Resolved(self._stripped.setdefault(name, _without_payload(found.policy)), found.name)

    def _from_code(self, rule: Rule, method: str) -> Policy | None:
        view = self._app.view_functions.get(rule.endpoint)
        cls = getattr(view, "view_class", None)
        dispatch = getattr(cls, "dispatch_request", None)
        for holder in (method_of(cls, method), dispatch, view, cls, *self._blueprints(rule.endpoint)):
            mark = getattr(holder, MARK, None)
            if isinstance(mark, Policy) and not (holder is cls and _inherits_public(cls, mark)):
                return mark
        return None

    def _blueprints(self, endpoint: str) -> Iterator[AnyBlueprint]:
        return (self._app.blueprints[name] for name in self._blueprint_names(endpoint))

    def _blueprint_names(self, endpoint: str) -> Iterator[str]:
        name = endpoint
        while "." in name:
            name = name.rpartition(".")[0]
            if name in self._app.blueprints:
                yield name

    def _misfits(self) -> Iterator[str]:
        yield from self._unknown_names()
        yield from self._doubled()
        yield from self._partly_configured()
        yield from self._several_hosts()
        yield from self._shadowed()
        yield from self._without_cors()
        yield from dict.fromkeys(self._wrapped_twice())
        yield from dict.fromkeys(self._without_payload_argument())

    def _without_owner_hook(self) -> Iterator[str]:
        if self._owner_hook:
            return
        for endpoint in sorted({rule.endpoint for rule, _, policy in self.routes() if policy.access.owner is True}):
            yield f"{endpoint!r} has a policy with owner=True, which requires SecureML(owner=...)"

    def _without_cors(self) -> Iterator[str]:
        """Yield the policies with CORS options in an app that does not respond to preflights."""
        if self._cors:
            return
        policies = [*self._configured.items(), *((rule.endpoint, policy) for rule, _, policy in self.routes())]
        for name in sorted({name for name, policy in policies if policy.cors and policy.cors.origins}):
            yield (
                f"{name!r} has cors in its policy, which requires SECURE_ML_CORS for all other routes; "
                f'set it to {{"origins": []}} if these have no origins'
            )

    def _unknown_names(self) -> Iterator[str]:
        rules = list(self._app.url_map.iter_rules())
        blueprints: dict[str, list[Rule]] = {}
        for rule in rules:
            for name in self._blueprint_names(rule.endpoint):
                blueprints.setdefault(name, []).append(rule)
        yield from self._configured.problems(rules, blueprints, self._mounts, plain=self._plain)

    def _doubled(self) -> Iterator[str]:
        for rule in self._app.url_map.iter_rules():
            methods = rule.methods or ()
            if any(self._configured.of_rule(rule, each) and any(self._wrapped(rule, each)) for each in methods):
                yield f"{rule.endpoint!r} has a policy in SECURE_ML_POLICIES and another in its code; keep one"

    def _partly_configured(self) -> Iterator[str]:
        """Yield the views with a configured policy for only some of their URLs, which would not apply to the others."""
        for endpoint, rules in self._by(lambda rule: rule.endpoint).items():
            for method in sorted({method for rule in rules for method in rule.methods or ()}):
                names = {rule.rule for rule in rules if method in (rule.methods or ())}
                named = {name for name in names if self._configured.get(name, method)}
                if named and names - named and not self._configured.get(endpoint, method):
                    others = ", ".join(sorted(names - named))
                    rule = f"SECURE_ML_POLICIES has a URL rule of {endpoint!r}"
                    yield f"{rule}, which is also at {others}; name the endpoint"
                    break

    def _several_hosts(self) -> Iterator[str]:
        for name, rules in self._by(lambda rule: rule.rule).items():
            if len({(rule.host, rule.subdomain) for rule in rules}) > 1 and any(
                self._configured.get(name, method) for rule in rules for method in rule.methods or ()
            ):
                yield f"SECURE_ML_POLICIES names {name!r}, which several hosts have; name the endpoints"

    def _shadowed(self) -> Iterator[str]:
        """Yield the URL rules of this extension that are also rules of the app, whose views would never run."""
        for rules in self._by(lambda rule: f"{rule.host}|{rule.subdomain}|{rule.rule.rstrip('/')}").values():
            if len({rule.endpoint.startswith(OWN_ENDPOINTS) for rule in rules}) > 1:
                name = rules[0].rule.rstrip("/")
                yield f"{name!r} is a URL rule of flask-secure-ml, and of a route of this app; change one of them"

    def _wrapped_twice(self) -> Iterator[str]:
        """Yield the views with two policies: only one can be cleared, so the other would reject every request."""
        for rule, method, _ in self._views():
            names = [name for name, function in called(self._view(rule), method) if policy_of(function)]
            if len({id(each) for each in self._wrapped(rule, method)}) > 1:
                yield f"{rule.endpoint!r} has two policies in its code, on {' and '.join(names)}; keep one"

    def _without_payload_argument(self) -> Iterator[str]:
        """Yield the views that do not accept the payload of their policy: each request would get 500."""
        for rule, method, _ in self._views():
            taking = dict(takers(self._view(rule), method))
            for name, function in taking.items():
                if not takes_payload(function):
                    yield f"{name} ({rule.endpoint!r}) has body= in its policy, but no argument named payload; add it"
            if taking and "payload" in rule.arguments:
                yield f"{rule.rule!r} has an argument named payload, as the validated body has; rename it"

    def _views(self) -> Iterator[tuple[Rule, str, Policy]]:
        """Yield the routes whose views run."""
        for rule, method, policy in self.routes():
            if not is_automatic_options(rule, method):
                yield rule, method, policy

    def _view(self, rule: Rule) -> Any:
        return self._app.view_functions.get(rule.endpoint)

    def _by(self, part: Callable[[Rule], str]) -> dict[str, list[Rule]]:
        grouped: dict[str, list[Rule]] = {}
        for rule in self._app.url_map.iter_rules():
            grouped.setdefault(part(rule), []).append(rule)
        return grouped

    def _wrapped(self, rule: Rule, method: str) -> list[Policy]:
        """Return the policies that wrap the functions that run for a request."""
        found = [policy_of(function) for _, function in called(self._view(rule), method)]
        return [policy for policy in found if policy is not None]


def is_automatic_options(rule: Rule, method: str) -> bool:
    """Return True if Flask responds to this request without the view."""
    return method == "OPTIONS" and bool(getattr(rule, "provide_automatic_options", False))


def _without_payload(policy: Policy) -> Policy:
    """Return the policy without the options that need the payload of a view.

    Access, limits and the limits of the body are kept, and so are the options of the response, because a hook may
    respond instead of Flask.
    """
    return policy if policy.body is None else replace(policy, body=None, cost=None)


def _raise_any(found: Iterable[str]) -> None:
    problems = list(found)
    if problems:
        raise ConfigError(problems)


def _inherits_public(cls: Any, mark: Policy) -> bool:
    """Return True if a class is public only by inheritance; the base was made public without its own methods."""
    return mark.public and MARK not in vars(cls)
