"""``flask secure-ml routes`` and ``openapi``: print the policy of each route, and the OpenAPI description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

import click
from flask.cli import with_appcontext

from ..policy.options import AccessOptions
from ..policy.policy import Policy
from .context import command_app, command_state, json_option, print_table

HEADINGS = ("Methods", "Rule", "Access", "Limits", "Body", "Policy")


@click.command()
@json_option
@with_appcontext
def routes(as_json: bool) -> None:
    """List all routes with their effective policy, and where it is declared."""
    if as_json:
        click.echo(json.dumps([dict(zip(map(str.lower, HEADINGS), row, strict=True)) for row in rows()]))
    else:
        print_table([HEADINGS, *rows()])


def rows() -> Iterator[tuple[str, ...]]:
    """Yield one row for each rule and policy; methods with the same policy share a row."""
    grouped: dict[tuple[str, int, str], tuple[list[str], Policy]] = {}
    for rule, method, found in command_state().policies.declared():
        key = (rule.rule, id(found.policy), found.source)
        grouped.setdefault(key, ([], found.policy))[0].append(method)
    for (rule_text, _, source), (methods, policy) in grouped.items():
        yield *_row(methods, rule_text, policy), source


def _row(methods: list[str], rule: str, policy: Policy) -> tuple[str, ...]:
    access = "public" if policy.public else "; ".join(access_words(policy.access)) or "any principal"
    limits = ", ".join(str(item) for item in policy.limits) or "-"
    return ",".join(methods), rule, access, limits, type(policy.body).__name__ if policy.body else "-"


def access_words(access: AccessOptions) -> Iterator[str]:
    """Yield the requirements on a caller, in the order of the checks."""
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


@click.command()
@click.option(
    "--output",
    type=click.File("w", encoding="utf-8", lazy=True, atomic=True),
    default="-",
    help="The output file, which is replaced atomically. Default: standard output.",
)
@with_appcontext
def openapi(output: IO[str]) -> None:
    """Print the OpenAPI 3.1 description of the app, even if the app does not serve it."""
    from ..openapi import build_document

    command_state()
    document = build_document(command_app())
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False), file=output)
