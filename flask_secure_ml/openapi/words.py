"""What is enforced, in plain words, for people who read the description."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from limits import RateLimitItem

from ..config.plans import Plan, Plans
from ..policy.options import AccessOptions, ScoreOptions
from ..policy.policy import Policy


def counted(number: int, noun: str, of: str = "") -> str:
    """Return a number with its noun, such as ``1 request`` or ``600 rows of instances``."""
    return f"{number} {noun}{'' if number == 1 else 's'}{of}"


def listed(words: Iterable[str], last: str = "and") -> str:
    """Return words as a sentence has them: ``a, b and c``."""
    *others, final = words
    return f"{', '.join(others)} {last} {final}" if others else final


def rate(item: RateLimitItem, noun: str = "request", of: str = "") -> str:
    """Return a limit such as ``600 requests per minute``."""
    window = item.GRANULARITY.name
    per = window if item.multiples == 1 else counted(item.multiples, window)
    return f"{counted(item.amount, noun, of)} per {per}"


def rate_limits(policy: Policy, plans: Plans) -> list[str]:
    """Return the limits that hold for a caller without a plan of its own; other plans are nobody else's business."""
    plan = plans.get("default", Plan())
    who = "address" if policy.public else "caller"
    found = [f"{rate(item)} for each {who}" for item in policy.limits]
    found += [f"{rate(item)} for each {who} over all routes, in the plan default" for item in plan.requests]
    if policy.cost is not None:
        rows = [rate(item, "row", f" of {policy.cost}") for item in plan.quotas]
        found += [f"{each} for each caller over all routes, in the plan default" for each in rows]
    return found


def access(terms: AccessOptions) -> Iterator[str]:
    """Yield what is asked of a caller beside scopes.

    Names of callers, values of claims and names of functions are not told: they say who the other customers are.
    """
    if terms.principals:
        yield "only for certain callers"
    if terms.roles:
        yield f"needs the role {listed(sorted(terms.roles), 'or')}"
    for name, _ in terms.claims:
        yield f"needs a certain value of the claim {name}"
    if terms.when is not None:
        yield "only for callers that the app lets in"
    if terms.acr_values:
        yield f"needs the authentication context {listed(terms.acr_values, 'or')}"
    if terms.max_auth_age is not None:
        yield f"the user must have authenticated within {counted(terms.max_auth_age, 'second')}"
    if terms.owner:
        yield "only for the owner of what the address names"


def scores(terms: ScoreOptions) -> Iterator[str]:
    """Yield what an answer does not say of the model's scores."""
    if terms.label_only:
        yield "scores are left out"
        return
    if terms.top_k is not None:
        yield f"only the largest {counted(terms.top_k, 'score')} of each row are told"
    if terms.round is not None:
        yield f"scores are rounded to {counted(terms.round, 'decimal')}"
    if terms.allows_nan:
        yield "NaN and Infinity are null"


def sentence(words: Iterable[str]) -> str:
    """Return phrases as one sentence; an empty text without any."""
    text = "; ".join(words)
    return text[:1].upper() + text[1:] + "." if text else ""
