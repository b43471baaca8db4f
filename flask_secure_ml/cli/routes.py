"""``flask secure-ml routes``: who may call what."""

from __future__ import annotations

from collections.abc import Iterator

import click
from flask.cli import with_appcontext

from ..policy import Policy
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
    access = "public" if policy.public else " ".join(sorted(policy.scopes)) or "any principal"
    limits = ", ".join(str(item) for item in policy.limits) or "-"
    return ",".join(methods), rule, access, limits, type(policy.body).__name__ if policy.body else "-"
