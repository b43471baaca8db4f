"""Limits, access options and score options as sentences for readers of the document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config.plans import Plan, Plans
from ..policy.limits import Limit
from ..policy.options import AccessOptions, ScoreOptions
from ..policy.policy import Policy


def counted(number: int, noun: str, of: str = "") -> str:
    """Return a number with its noun, such as ``1 request`` or ``600 rows of instances``."""
    return f"{number} {noun}{'' if number == 1 else 's'}{of}"


def listed(words: Iterable[str], last: str = "and") -> str:
    """Return words as a list in a sentence: ``a, b and c``."""
    *others, final = words
    return f"{', '.join(others)} {last} {final}" if others else final


def rate(limit: Limit, noun: str = "request", of: str = "") -> str:
    """Return a limit as a phrase such as ``600 requests per minute``."""
    item = limit.item
    window = item.GRANULARITY.name
    per = window if item.multiples == 1 else counted(item.multiples, window)
    return f"{counted(item.amount, noun, of)} per {per}"


def rate_limits(policy: Policy, plans: Plans) -> list[str]:
    """Return the limits for callers without an assigned plan; other plans are not revealed."""
    plan = plans.get("default", Plan())
    who = "IP address" if policy.public else "caller"
    found = [f"{rate(item)} for each {who}" for item in policy.limits]
    found += [f"{rate(item)} for each {who} over all routes, in the plan default" for item in plan.requests]
    if policy.in_flight is not None:
        found.append(f"{counted(policy.in_flight, 'request')} in flight over all callers")
    if plan.in_flight is not None:
        found.append(f"{counted(plan.in_flight, 'request')} in flight for each {who}, in the plan default")
    if policy.cost is not None:
        field = f" of {policy.cost}" if isinstance(policy.cost, str) else ""
        rows = [rate(item, policy.cost_unit.removesuffix("s"), field) for item in plan.quotas]
        found += [f"{each} for each caller over all routes, in the plan default" for each in rows]
    return found


def access(options: AccessOptions) -> Iterator[str]:
    """Yield the requirements on a caller in addition to scopes.

    Names of callers, values of claims and names of functions are omitted, because they can reveal other customers.
    """
    if options.principals:
        yield "only for certain callers"
    if options.roles:
        yield f"needs the role {listed(sorted(options.roles), 'or')}"
    for name, _ in options.claims:
        yield f"needs a certain value of the claim {name}"
    if options.when is not None:
        yield "only for callers that the app admits"
    if options.acr_values:
        yield f"needs the authentication context {listed(options.acr_values, 'or')}"
    if options.max_auth_age is not None:
        yield f"the user must have authenticated within {counted(options.max_auth_age, 'second')}"
    if options.owner:
        yield "only for the owner of the resource that the URL names"


def scores(options: ScoreOptions) -> Iterator[str]:
    """Yield how the scores of the model are masked."""
    if options.label_only:
        yield "scores are removed"
        return
    if options.top_k is not None:
        yield f"only the largest {counted(options.top_k, 'score')} of each row are kept"
    if options.round is not None:
        yield f"scores are rounded to {counted(options.round, 'decimal')}"
    if options.allows_nan:
        yield "NaN and Infinity are null"


def sentence(words: Iterable[str]) -> str:
    """Join phrases into one sentence; an empty string if there are none."""
    joined = "; ".join(words)
    return joined[:1].upper() + joined[1:] + "." if joined else ""
