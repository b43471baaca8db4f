"""``flask secure-ml routes``: who may call what."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
from flask.cli import with_appcontext

from ..policy.options import AccessTerms
from ..policy.policy import Policy
from .context import command_state, print_table

HEADINGS = ("Methods", "Rule", "Access", "Limits", "Body")


@click.command()
@with_appcontext
def routes() -> None:
    """List every route with the policy that is enforced for it."""
    print_table([HEADINGS, *rows()])


def rows() -> Iterator[tuple[str, ...]]:
    """Yield a row for each rule and policy; methods under one policy stand together."""
    grouped: dict[tuple[str, int], tuple[list[str], Policy]] = {}
    for rule, method, policy in command_state().policies.routes():
        grouped.setdefault((rule.rule, id(policy)), ([], policy))[0].append(method)
    for (rule_text, _), (methods, policy) in grouped.items():
        yield _row(methods, rule_text, policy)


def _row(methods: list[str], rule: str, policy: Policy) -> tuple[str, ...]:
    access = "public" if policy.public else "; ".join(access_words(policy.access)) or "any principal"
    limits = ", ".join(str(item) for item in policy.limits) or "-"
    return ",".join(methods), rule, access, limits, type(policy.body).__name__ if policy.body else "-"


def access_words(access: AccessTerms) -> Iterator[str]:
    """Yield what is asked of a caller, one term after the other as they are checked."""
    for label, words in (
        ("principals: ", access.principals),
        ("", access.scopes),
        ("any of: ", access.any_scopes),
        ("roles: ", access.roles),
    ):
        if words:
            yield label + " ".join(sorted(words))
    for name, allowed in access.claims:
        yield f"{name}={'|'.join(map(json.dumps, allowed))}"
    if access.when is not None:
        yield f"when {_name(access.when)}"
    if access.acr_values:
        yield f"acr: {' '.join(access.acr_values)}"
    if access.max_auth_age is not None:
        yield f"authenticated within {access.max_auth_age} s"
    if access.owner:
        yield "owner" if access.owner is True else f"owner {_name(access.owner)}"


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))
