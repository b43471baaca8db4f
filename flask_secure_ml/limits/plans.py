"""The rules of a request: of the caller's plan, of the route for each caller, and of the route in total."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..policy.limits import Limit, Limits
from ..policy.policy import Policy
from .rules import STRATEGIES, Kind, Rule, RuleSet, key_of, numbered

if TYPE_CHECKING:
    from ..config.plans import Plan


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rules by which requests are charged under a plan and a policy.

    :param caller: the rules of the caller.
    :param route: the rules of the route, for all callers together, or None.
    :param route_key: the key of the route.
    :param deferred: whether the price depends on the body, so that everything is charged at COST.
    :param most_rows: the highest price that can ever fit; None for no limit.
    :param in_flight: whether the request takes leases.
    :param header: the value of ``RateLimit-Policy``.
    """

    caller: RuleSet
    route: RuleSet | None
    route_key: bytes
    deferred: bool
    most_rows: int | None
    header: str
    limits: Limits
    in_flight: bool


class Tariffs:
    """Creates and caches tariffs.

    :param strategy: the default strategy of limits.
    :param outage: the default outage policy of limits.
    """

    def __init__(self, strategy: str, outage: str) -> None:
        self._strategy = strategy
        self.outage = outage
        self._made: dict[object, Tariff] = {}

    def get(self, plan: Plan, policy: Policy, endpoint: str | None) -> Tariff:
        """Return the tariff of a request."""
        # Ids, because hashes take longer. Plans live as long as the app, and the tariff keeps the limits alive.
        name = (id(plan), id(policy.limits), policy.in_flight, policy.limit_group, endpoint, policy.cost is None)
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = self._make(plan, policy, endpoint)
        return found

    def _make(self, plan: Plan, policy: Policy, endpoint: str | None) -> Tariff:
        scope = f"group:{policy.limit_group}" if policy.limit_group else f"route:{endpoint or ''}"
        rules = [*self._windows("plan", "", plan.requests), *self._windows(scope, "route-", policy.limits)]
        if policy.cost is not None:
            rules += self._windows("plan", "", plan.quotas, "rows")
        if plan.in_flight is not None:
            rules.append(self._in_flight("plan:in-flight", "in-flight", plan.in_flight))
        caller = RuleSet(numbered(rules), backs_off=True)
        route = None
        if policy.in_flight is not None:
            route = RuleSet([self._in_flight("in-flight", "route-in-flight", policy.in_flight)])
        rows = [rule.capacity for rule in caller.rules if rule.unit == "rows"]
        if plan.batch is not None and policy.cost is not None:
            rows.append(plan.batch)
        every = (*caller.rules, *(route.rules if route else ()))
        return Tariff(
            caller,
            route,
            key_of("route", endpoint or ""),
            policy.cost is not None,
            min(rows, default=None),
            policy_header(every),
            policy.limits,
            route is not None or bool(caller.leases),
        )

    def _windows(self, scope: str, prefix: str, limits: Limits, unit: str = "requests") -> Iterator[Rule]:
        for limit in limits:
            yield self.rule(limit, scope, prefix, unit)

    def rule(self, limit: Limit, scope: str, prefix: str = "", unit: str = "requests") -> Rule:
        """Return the rule of a limit.

        :param scope: the part of the counter's name that says what it is counted for.
        :param prefix: the prefix of the label that callers see.
        """
        kind = STRATEGIES[limit.strategy or self._strategy]
        label = f"{unit}-{limit.seconds}s"
        # The name includes the kind, because counters of different kinds have different meanings.
        return Rule(
            f"{scope}:{label}:{kind.name.lower()}",
            kind,
            limit.amount,
            float(limit.seconds),
            unit,
            limit.burst or 0,
            limit.outage or self.outage,
            f"{prefix}{label}",
        )

    def _in_flight(self, name: str, label: str, amount: int) -> Rule:
        return Rule(name, Kind.LEASES, amount, 0.0, "concurrent-requests", 0, self.outage, label)


def policy_header(rules: tuple[Rule, ...]) -> str:
    """Return the value of ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10 section 3).

    A quota in rows has an unregistered unit, because clients would take it for a quota of requests without a unit.
    """
    return ", ".join(_policy_item(rule) for rule in rules)


def _policy_item(rule: Rule) -> str:
    window = f";w={rule.seconds:.0f}" if rule.seconds else ""
    unit = "" if rule.unit == "requests" else f';qu="{rule.unit}"'
    return f'"{rule.label}";q={rule.amount}{window}{unit}'
