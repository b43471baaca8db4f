"""Which policy holds for a request, and whether policies fit the routes that exist."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from flask import Flask
from flask.views import MethodView
from werkzeug.routing import Rule

from ..errors import ConfigError
from .paths import canonical, in_mount, spellings
from .policy import MARK, Policy

if TYPE_CHECKING:
    from flask.sansio.blueprints import Blueprint as AnyBlueprint


OWN_ENDPOINTS = "secure_ml_"
"""The prefix of the endpoints that this extension adds."""


class PolicyTable:
    """Finds the policy of a route: configuration, then method, view, class, blueprint, then the default.

    Names that start with ``/`` are URL rules, or the paths of what is mounted beneath the guards. One that ends in
    ``/*`` is for a path and all paths below it: for mounts, and for routes that have no policy of their own.

    :param configured: policies by endpoint, URL rule or path.
    :param owner_hook: ``SecureML(owner=...)`` was given, which policies with ``owner=True`` need.
    :param cors: ``SECURE_ML_CORS`` is set, which policies with ``cors`` need.
    :param mounts: the paths of what is mounted beneath the guards.
    """

    def __init__(
        self,
        app: Flask,
        configured: Mapping[str, Policy],
        *,
        owner_hook: bool = False,
        cors: bool = False,
        mounts: Collection[str] = (),
    ) -> None:
        self._app = app
        self._configured = configured
        self._owner_hook = owner_hook
        self._cors = cors
        self._mounts = mounts
        self._default = Policy()
        self._checked = False
        self._found: dict[tuple[str, str, str, bool], Policy] = {}
        # A rule with converters is no path, although a client can send its very characters.
        self._paths = {name for name in configured if name.startswith("/") and "<" not in name}
        self._trees = sorted((name.removesuffix("/*") for name in configured if _is_tree(name)), key=len, reverse=True)

    def find(self, rule: Rule | None, method: str, path: str = "") -> Policy:
        """Return the policy of a request to Flask.

        Where no view runs, the policy has neither ``body`` nor ``cost``: every guard sees the same.

        :param rule: the rule that matched; None for an unknown URL or a wrong method.
        :param path: the path of the URL.
        """
        policy = self._default
        if rule is not None:
            key = (rule.rule, rule.endpoint, method, is_automatic_options(rule, method))
            found = self._found.get(key)
            policy = self._found.setdefault(key, self._resolve(rule, method)) if found is None else found
        if self._trees and policy is self._default:
            # Not by an exact path: that is the name of another rule, whose policy is not for this view.
            name = self._tree(canonical(path))
            return policy if name is None else self._named(name, path)[0]
        return policy

    def beneath(self, path: str, rule: Rule | None, method: str) -> tuple[Policy, str | None]:
        """Return the policy of a request to whatever is beneath the guards, and the configured name of its path.

        A public policy never opens another spelling of its path: what is beneath may read it differently.

        :param path: the path as WSGI gives it.
        :param rule: the rule that matched; None as for :meth:`find`, and for what is mounted.
        """
        for spelling in spellings(path):
            meant = canonical(spelling)
            name = meant if meant in self._paths else self._tree(meant)
            if name is not None:
                return self._named(name, spelling)
        return self.find(rule, method), None

    def _named(self, name: str, path: str) -> tuple[Policy, str | None]:
        policy = self._configured[name]
        return (self._default, None) if policy.public and canonical(path) != path else (policy, name)

    def _tree(self, path: str) -> str | None:
        """Return the longest configured name with ``/*`` that matches a path."""
        return next((f"{root}/*" for root in self._trees if path == root or path.startswith(f"{root}/")), None)

    def ensure_checked(self) -> None:
        """Check once, when the first request is served and every route is known.

        A missing owner hook is left to :meth:`problems`: its routes respond with 403, and the others are sound.

        :raises ConfigError: a policy does not fit; raised for every request until that is fixed.
        """
        if not self._checked:
            _raise_any(self._misfits())
            self._checked = True

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each policy that does not fit the routes that exist now.

        That is a name without a route, a route with two policies, a view that cannot take its payload, or a route that
        nobody could call because its owner hook is missing.
        """
        yield from self._misfits()
        yield from self._without_owner_hook()

    def routes(self) -> Iterator[tuple[Rule, str, Policy]]:
        """Yield each rule, method and policy of the app."""
        for rule in self._app.url_map.iter_rules():
            for method in sorted(rule.methods or ()):
                yield rule, method, self.find(rule, method)

    def _resolve(self, rule: Rule, method: str) -> Policy:
        policy = self._from_config(rule) or self._from_code(rule, method) or self._default
        return _without_payload(policy) if is_automatic_options(rule, method) else policy

    def _from_config(self, rule: Rule) -> Policy | None:
        return self._configured.get(rule.rule) or self._configured.get(rule.endpoint)

    def _from_code(self, rule: Rule, method: str) -> Policy | None:
        view = self._app.view_functions.get(rule.endpoint)
        cls = getattr(view, "view_class", None)
        dispatch = getattr(cls, "dispatch_request", None)
        for holder in (_method_of(cls, method), dispatch, view, cls, *self._blueprints(rule.endpoint)):
            mark = getattr(holder, MARK, None)
            if isinstance(mark, Policy) and not (holder is cls and _inherits_public(cls, mark)):
                return mark
        return None

    def _blueprints(self, endpoint: str) -> Iterator[AnyBlueprint]:
        name = endpoint
        while "." in name:
            name = name.rpartition(".")[0]
            if name in self._app.blueprints:
                yield self._app.blueprints[name]

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
            yield f"{endpoint!r} has a policy with owner=True, which needs SecureML(owner=...)"

    def _without_cors(self) -> Iterator[str]:
        """Yield the policies for other origins in an app that would not respond to a preflight."""
        if self._cors:
            return
        policies = [*self._configured.items(), *((rule.endpoint, policy) for rule, _, policy in self.routes())]
        for name in sorted({name for name, policy in policies if policy.cors and policy.cors.origins}):
            yield (
                f"{name!r} has cors in its policy, which needs SECURE_ML_CORS for all other routes; "
                f'set it to {{"origins": []}} if these have no origins'
            )

    def _unknown_names(self) -> Iterator[str]:
        known = {rule.rule for rule in self._app.url_map.iter_rules()}
        known |= {rule.endpoint for rule in self._app.url_map.iter_rules()}
        for name in sorted(self._configured.keys() - known):
            if not _is_tree(name) and not in_mount(name, self._mounts):
                yield (
                    f"SECURE_ML_POLICIES names {name!r}, which is neither an endpoint nor a URL rule of this app, "
                    f"nor a path below a mount"
                )

    def _doubled(self) -> Iterator[str]:
        for rule in self._app.url_map.iter_rules():
            methods = rule.methods or ()
            if self._from_config(rule) and any(any(self._wrapped(rule, method)) for method in methods):
                yield f"{rule.endpoint!r} has a policy in SECURE_ML_POLICIES and another in its code; keep one"

    def _partly_configured(self) -> Iterator[str]:
        """Yield the views with a policy for one of their URLs only: it would leave the others as they were."""
        for endpoint, rules in self._by(lambda rule: rule.endpoint).items():
            names = {rule.rule for rule in rules}
            if endpoint not in self._configured and names & self._configured.keys() and names - self._configured.keys():
                others = ", ".join(sorted(names - self._configured.keys()))
                yield f"SECURE_ML_POLICIES has a URL rule of {endpoint!r}, which is also at {others}; name the endpoint"

    def _several_hosts(self) -> Iterator[str]:
        for name, rules in self._by(lambda rule: rule.rule).items():
            if name in self._configured and len({(rule.host, rule.subdomain) for rule in rules}) > 1:
                yield f"SECURE_ML_POLICIES names {name!r}, which several hosts have; name the endpoints"

    def _shadowed(self) -> Iterator[str]:
        """Yield the URL rules of this extension that are rules of the app too, whose views would never run."""
        for rules in self._by(lambda rule: f"{rule.host}|{rule.subdomain}|{rule.rule.rstrip('/')}").values():
            if len({rule.endpoint.startswith(OWN_ENDPOINTS) for rule in rules}) > 1:
                name = rules[0].rule.rstrip("/")
                yield f"{name!r} is a URL rule of flask-secure-ml, and of a route of this app; change one of them"

    def _wrapped_twice(self) -> Iterator[str]:
        """Yield the views that run under two policies: only one is cleared, so the other would always reject."""
        for rule, method, _ in self._views():
            names = [name for name, function in _called(self._view(rule), method) if _policy_of(function)]
            if len({id(each) for each in self._wrapped(rule, method)}) > 1:
                yield f"{rule.endpoint!r} has two policies in its code, on {' and '.join(names)}; keep one"

    def _without_payload_argument(self) -> Iterator[str]:
        """Yield the views that do not take the payload of their policy: each request would be a 500."""
        for rule, method, _ in self._views():
            takers = dict(_takers(self._view(rule), method))
            for name, function in takers.items():
                if not _takes_payload(function):
                    yield f"{name} ({rule.endpoint!r}) has body= in its policy, but takes no argument named payload"
            if takers and "payload" in rule.arguments:
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
        """Return the policies that wrap what runs for a request."""
        found = [_policy_of(function) for _, function in _called(self._view(rule), method)]
        return [policy for policy in found if policy is not None]


def _called(view: Any, method: str) -> Iterator[tuple[str, Any]]:
    """Yield what runs for a request, outermost first: the view, and of a class its dispatch and its method."""
    cls = getattr(view, "view_class", None)
    if view is not None:
        yield f"{cls.__qualname__}.decorators" if cls else _name(view), view
    if cls is not None:
        dispatch = cls.dispatch_request
        yield _name(dispatch), dispatch
        if issubclass(cls, MethodView) and (found := _method_of(cls, method)) is not None:
            yield _name(found), found


def _takers(view: Any, method: str) -> Iterator[tuple[str, Any]]:
    """Yield what gets the payload: what a policy with body wraps, and what that passes its arguments to."""
    passed_on = False
    for name, function in _called(view, method):
        policy = _policy_of(function)
        if passed_on or (policy and policy.body):
            yield name, function.__wrapped__ if policy else function
            # Another dispatch_request may do with the payload what it likes.
            passed_on = function is view or function is MethodView.dispatch_request


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _policy_of(function: Any) -> Policy | None:
    mark = getattr(function, MARK, None)
    return mark if isinstance(mark, Policy) else None


def _takes_payload(function: Any) -> bool:
    """Return True if a function takes the keyword argument ``payload``, or if its signature does not show it."""
    while True:
        try:
            parameters = signature(function, follow_wrapped=False).parameters
        except (TypeError, ValueError):
            return True
        if "payload" in parameters:
            return parameters["payload"].kind not in {Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL}
        if all(each.kind is not Parameter.VAR_KEYWORD for each in parameters.values()):
            return False
        if not hasattr(function, "__wrapped__"):
            return True
        # A decorator passes on what it takes; one that consumes the payload names it.
        function = function.__wrapped__


def _is_tree(name: str) -> bool:
    return name.startswith("/") and name.endswith("/*")


def is_automatic_options(rule: Rule, method: str) -> bool:
    """Return True if Flask responds to this request by itself, without the view."""
    return method == "OPTIONS" and bool(getattr(rule, "provide_automatic_options", False))


def _without_payload(policy: Policy) -> Policy:
    """Return the policy without what needs the payload of a view.

    Access, limits and the limits on the body stay, and so do the options of the response: a hook may respond in place
    of Flask.
    """
    return policy if policy.body is None else replace(policy, body=None, cost=None)


def _raise_any(found: Iterable[str]) -> None:
    problems = list(found)
    if problems:
        raise ConfigError(problems)


def _inherits_public(cls: Any, mark: Policy) -> bool:
    """Return True if a class is open by inheritance only: whoever opened the base never saw its own methods."""
    return mark.public and MARK not in vars(cls)


def _method_of(cls: type | None, method: str) -> Any:
    """Return the method of a class-based view that runs; HEAD falls back to ``get`` as in Flask."""
    if cls is None:
        return None
    found = getattr(cls, method.lower(), None)
    return getattr(cls, "get", None) if found is None and method == "HEAD" else found
