"""The names in ``SECURE_ML_POLICIES``: the requests that each matches, and their precedence.

A name is a target, or methods and a target: ``POST /predict``, ``GET,HEAD /models/*``. The targets, most specific
first:

==================  ===================================================================================
``/predict``        a URL rule, or the path of an app that is mounted beneath the guards
``predict``         an endpoint
``/models/*``       a path and all paths below it; the longest of several
``blueprint:api``   the routes of a blueprint; the innermost of nested ones
``*``               every request
==================  ===================================================================================

Targets take precedence over methods; of two names with the same target, the one with methods takes precedence. The last
three are *wide*: they do not apply to routes with a policy in code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from werkzeug.routing import Rule

from .paths import canonical, in_mount
from .policy import Policy
from .schema import closest

EVERY = "*"
BLUEPRINT = "blueprint:"
_TREE = "/*"
_METHODS = re.compile(r"([A-Z]+(?:,[A-Z]+)*) +(\S.*)", re.DOTALL)
_ANY = ""


class Named(NamedTuple):
    """A configured policy and its name."""

    name: str
    policy: Policy


class ConfiguredPolicies:
    """Finds the configured policy of a request.

    :param configured: policies by name.
    """

    def __init__(self, configured: Mapping[str, Policy]) -> None:
        self._configured = configured
        self._by_target: dict[str, dict[str, Named]] = {}
        self._doubled: list[str] = []
        for name, policy in configured.items():
            methods, target = parsed(name)
            for method in methods or (_ANY,):
                known = self._by_target.setdefault(target, {}).setdefault(method, Named(name, policy))
                if known.name != name:
                    self._doubled.append(f"SECURE_ML_POLICIES has {known.name!r} and {name!r} for the same requests")
        self._trees = sorted(
            (each.removesuffix(_TREE) for each in self._by_target if is_tree(each)), key=len, reverse=True
        )
        # A rule with converters is not a path, although a client can send exactly these characters.
        self._paths = {each for each in self._by_target if each.startswith("/") and "<" not in each}
        self.has_wide: bool = any(map(_is_wide, self._by_target))

    def get(self, target: str, method: str) -> Named | None:
        """Return the policy for a target, or None.

        A name with GET also applies to HEAD, which runs the same view.
        """
        found = self._by_target.get(target)
        if found is None:
            return None
        return found.get(method) or (found.get("GET") if method == "HEAD" else None) or found.get(_ANY)

    def of_rule(self, rule: Rule, method: str) -> Named | None:
        """Return the policy for a rule or its endpoint."""
        return self.get(rule.rule, method) or self.get(rule.endpoint, method)

    def of_path(self, path: str, method: str) -> Named | None:
        """Return the policy for a path that a layer beneath the guards serves.

        :param path: without empty and dot segments.
        """
        return (self.get(path, method) if path in self._paths else None) or self.tree(path, method)

    def tree(self, path: str, method: str) -> Named | None:
        """Return the policy for the longest tree that contains a path."""
        for root in self._trees:
            if (path == root or path.startswith(f"{root}/")) and (found := self.get(root + _TREE, method)):
                return found
        return None

    def wide(self, path: str, blueprints: Iterable[str], method: str) -> Named | None:
        """Return the policy for a request whose route does not have its own policy.

        A public tree does not apply to other spellings of its paths, which the layers beneath may interpret
        differently.

        :param path: the path of the URL.
        :param blueprints: the names of the blueprints of its route, innermost first.
        """
        meant = canonical(path)
        found = self.tree(meant, method)
        if found is not None:
            return None if found.policy.public and meant != path else found
        for name in blueprints:
            if found := self.get(BLUEPRINT + name, method):
                return found
        return self.get(EVERY, method)

    def items(self) -> Iterable[tuple[str, Policy]]:
        """Return the names and the policies."""
        return self._configured.items()

    def mounted(self, mounts: Collection[str]) -> Iterator[tuple[str, tuple[str, ...], Policy]]:
        """Yield the paths of mounted apps that have a policy, its methods and the policy, sorted by name.

        A path that ends with ``/*`` includes the paths below it.

        :param mounts: the paths of apps that are mounted beneath the guards.
        """
        for name, policy in sorted(self._configured.items(), key=lambda item: item[0]):
            methods, target = parsed(name)
            root = target.removesuffix(_TREE)
            if target.startswith("/") and in_mount(root or "/", mounts):
                yield target, methods, policy
            elif is_tree(target) or target == EVERY:
                below = "/" if target == EVERY else f"{root}/"
                yield from ((f"{each}{_TREE}", methods, policy) for each in sorted(mounts) if each.startswith(below))

    def problems(
        self,
        rules: Collection[Rule],
        blueprints: Mapping[str, Collection[Rule]],
        mounts: Collection[str],
        *,
        plain: bool,
    ) -> Iterator[str]:
        """Yield a sentence for each name that matches no request, or too many.

        :param rules: the rules of the app.
        :param blueprints: the rules of each blueprint.
        :param mounts: the paths of apps that are mounted beneath the guards.
        :param plain: whether only Flask can serve a path.
        """
        yield from self._doubled
        for name, policy in sorted(self._configured.items(), key=lambda item: item[0]):
            methods, target = parsed(name)
            if target == EVERY and policy.public:
                yield f"SECURE_ML_POLICIES makes all requests public with {name!r}; name the public routes instead"
            matched = _rules_of(target, rules, blueprints)
            if _is_mounted(target, mounts) or (is_tree(target) and not plain):
                continue
            if not matched:
                guess = closest(target, _names(rules, blueprints))
                hint = f"; did you mean {guess!r}?" if guess else ""
                yield f"SECURE_ML_POLICIES names {name!r}, which is {_NOTHING[_kind(target)]}{hint}"
            elif methods and (missing := set(methods) - (taken := _methods_of(matched))):
                what = f"no route there accepts {' or '.join(sorted(missing))}, only {', '.join(sorted(taken))}"
                yield f"SECURE_ML_POLICIES names {name!r}, but {what}"


_NOTHING: Mapping[str, str] = {
    "name": "neither an endpoint nor a URL rule of this app, nor a path below a mount",
    "tree": "a path without a route of this app",
    "blueprint": "not a blueprint of this app with a route",
    "every": "for an app without a route",
}


def parsed(name: str) -> tuple[tuple[str, ...], str]:
    """Return the methods and the target of a name; no methods mean all."""
    found = _METHODS.fullmatch(name)
    return (tuple(found[1].split(",")), found[2]) if found else ((), name)


def is_tree(target: str) -> bool:
    """Return True if a target is a path with all paths below it."""
    return target.startswith("/") and target.endswith(_TREE)


def _is_wide(target: str) -> bool:
    return _kind(target) != "name"


def _kind(target: str) -> str:
    if target == EVERY:
        return "every"
    if target.startswith(BLUEPRINT):
        return "blueprint"
    return "tree" if is_tree(target) else "name"


def _rules_of(target: str, rules: Collection[Rule], blueprints: Mapping[str, Collection[Rule]]) -> Collection[Rule]:
    kind = _kind(target)
    if kind == "every":
        return rules
    if kind == "blueprint":
        return blueprints.get(target.removeprefix(BLUEPRINT), ())
    if kind == "tree":
        return [rule for rule in rules if _may_be_below(rule.rule, target.removesuffix(_TREE))]
    return [rule for rule in rules if target in {rule.rule, rule.endpoint}]


def _names(rules: Collection[Rule], blueprints: Iterable[str]) -> set[str]:
    """Return the targets that exist: URL rules, endpoints and blueprints."""
    return {each for rule in rules for each in (rule.rule, rule.endpoint)} | {BLUEPRINT + name for name in blueprints}


def _methods_of(rules: Iterable[Rule]) -> set[str]:
    return {method for rule in rules for method in rule.methods or ()}


def _may_be_below(rule: str, root: str) -> bool:
    """Return True if a rule can match the root of a tree or a path below it."""
    fixed, converter, _ = rule.partition("<")
    below = fixed.rstrip("/") == root or fixed.startswith(f"{root}/")
    return below or (bool(converter) and f"{root}/".startswith(fixed))


def _is_mounted(target: str, mounts: Collection[str]) -> bool:
    if not target.startswith("/"):
        return False
    root = target.removesuffix(_TREE) or "/"
    return in_mount(root, mounts) or (is_tree(target) and any(each.startswith(f"{root}/") for each in mounts))
