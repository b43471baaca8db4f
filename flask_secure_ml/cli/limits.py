"""``flask secure-ml limits``: who uses how much, and ending a block early."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime

import click
from flask.cli import AppGroup

from ..limits.counters import Counters, Verdict
from ..limits.engine import Limiter
from ..limits.rules import Kind, Rule, RuleSet, key_of, numbered
from ..limits.usage import Used, day_name, day_number, day_of
from ..state import AppState
from .context import command_state, json_option, mistakes_as_messages, print_table

limits: AppGroup = AppGroup("limits", help="Show what callers use of their limits, and lift what rejects them.")

NEAR = 0.8
"""The share of a limit from which a caller is near it."""

HEADINGS = ("Caller", "Limit", "Used", "Of", "Resets in", "State")
IN_MEMORY = (
    "limits are counted in the memory of each worker, which a command cannot see; set SECURE_ML_STORE_URI to "
    "sqlite:/path or redis://host, or restart the workers to clear them"
)


NOT_COUNTED = "usage is not counted: set SECURE_ML_USAGE_DAYS to the number of days for which it is kept"
GROUPS = ("client", "plan", "route", "day")
SUMS = ("requests", "rows", "cost")
_DATE = click.DateTime(["%Y-%m-%d"])


@dataclass(frozen=True)
class Line:
    """What a caller uses of one limit.

    :param resets_in: whole seconds until the window ends.
    :param state: ``ok``, ``near``, ``over``, ``waiting`` for a caller that went on beyond a limit, or ``blocked``.
    """

    caller: str
    limit: str
    used: int
    amount: int
    resets_in: int
    state: str

    def row(self) -> tuple[str, ...]:
        """Return the cells of a table."""
        wait = f"{self.resets_in} s" if self.resets_in else "-"
        return self.caller, self.limit, str(self.used), str(self.amount), wait, self.state


@limits.command("show")
@click.argument("principal")
@json_option
def show(principal: str, as_json: bool) -> None:
    """Show what PRINCIPAL uses of each limit.

    PRINCIPAL is the member "principal" of the request log, or such as address:192.0.2.1 for an anonymous caller.
    """
    state = command_state()
    with mistakes_as_messages():
        found = list(
            _lines(_shared(state), principal, key_of("caller", principal), rules_of(state), _block_after(state))
        )
    _print(found, as_json, f"{principal} has used nothing of any limit.")


@limits.command("list")
@click.option("--all", "everyone", is_flag=True, help="Every caller, and not only those near or over a limit.")
@json_option
def list_limits(everyone: bool, as_json: bool) -> None:
    """List who is near or over a limit, is waiting, or is blocked."""
    state = command_state()
    rules = rules_of(state)
    with mistakes_as_messages():
        counters = _shared(state)
        callers = sorted(counters.callers().items(), key=lambda item: item[1])
        found = [line for key, name in callers for line in _lines(counters, name, key, rules, _block_after(state))]
    _print([line for line in found if everyone or line.state != "ok"], as_json, "Nobody is near a limit.")


@limits.command("clear")
@click.argument("principal")
@json_option
def clear(principal: str, as_json: bool) -> None:
    """Remove the counts, the penalty and the block of PRINCIPAL.

    A worker that rejected the caller a moment ago notices within a second.
    """
    with mistakes_as_messages():
        cleared = _shared(command_state()).clear(key_of("caller", principal))
    if as_json:
        click.echo(json.dumps({"principal": principal, "cleared": cleared}))
    else:
        click.echo(f"cleared: {principal}" if cleared else f"nothing was counted for {principal}")


@limits.command("usage")
@click.option("--since", type=_DATE, help="The first day (UTC); by default the first of this month.")
@click.option("--until", type=_DATE, help="The last day (UTC); by default today.")
@click.option("--by", "groups", default="client", show_default=True, help="Any of client, plan, route and day.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
def usage(since: datetime | None, until: datetime | None, groups: str, as_csv: bool, as_json: bool) -> None:
    """Sum up what callers used: requests, rows and their cost.

    Rows are what was reserved, in the unit of "cost=" of each route. The cost is what is left of it after refunds and
    corrections. Requests that were rejected by a limit, and those of anonymous callers, are not counted.
    """
    by = tuple(groups.split(","))
    if unknown := set(by) - set(GROUPS):
        raise click.BadParameter(f"{min(unknown)!r} is none of {', '.join(GROUPS)}", param_hint="--by")
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    state = command_state()
    with mistakes_as_messages():
        counters = _shared(state)
        if not state.limiter.usage:
            raise click.ClickException(NOT_COUNTED)
        today = day_of(state.clock.now())
        last = today if until is None else day_number(until.date())
        first = _first_of_month(last) if since is None else day_number(since.date())
        lines = _sums(counters.used(first, last), by)
    if as_json:
        click.echo(json.dumps(lines))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, [*by, *SUMS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    elif lines:
        headings = tuple(name.capitalize() for name in (*by, *SUMS))
        print_table([headings, *(tuple(str(cell) for cell in line.values()) for line in lines)])
    else:
        click.echo("Nothing was used.")


def _first_of_month(day: int) -> int:
    return day_number(date.fromisoformat(day_name(day)).replace(day=1))


def _sums(used: Iterable[Used], by: tuple[str, ...]) -> list[dict[str, str | int]]:
    found: dict[tuple[str, ...], Counter[str]] = {}
    for each in used:
        cells = each._asdict() | {"day": day_name(each.day)}
        sums = found.setdefault(tuple(cells[name] for name in by), Counter())
        for name in SUMS:
            sums[name] += cells[name]
    return [
        dict(zip(by, group, strict=True)) | {name: sums[name] for name in SUMS} for group, sums in sorted(found.items())
    ]


def rules_of(state: AppState) -> RuleSet:
    """Return every rule that a caller can have, under any plan and on any route."""
    found: dict[str, Rule] = {}
    for rule in _every_rule(state, state.limiter):
        found.setdefault(rule.name, rule)
    return RuleSet(numbered(found.values()), backs_off=True)


def _every_rule(state: AppState, limiter: Limiter) -> Iterator[Rule]:
    for rule, _, declared in state.policies.declared():
        for plan in state.settings.plans.values():
            yield from limiter.tariffs.get(plan, declared.policy, rule.endpoint).caller.rules


def _block_after(state: AppState) -> int:
    backoff = state.settings.limit_backoff
    return 0 if backoff is None else backoff.block_after


def _shared(state: AppState) -> Counters:
    counters = state.limiter.counters
    if not counters.shared:
        raise click.ClickException(IN_MEMORY)
    return counters


def _lines(counters: Counters, name: str, key: bytes, rules: RuleSet, block_after: int) -> Iterator[Line]:
    verdict = counters.peek(key, rules)
    if verdict.penalty:
        state = "blocked" if verdict.strikes >= block_after else "waiting"
        yield Line(name, "backoff", verdict.strikes, block_after, math.ceil(verdict.penalty), state)
    yield from _counted(name, rules, verdict)


def _counted(name: str, rules: RuleSet, verdict: Verdict) -> Iterator[Line]:
    for rule, count in zip(rules.rules, verdict.counts, strict=True):
        used = math.ceil(count.used - 1e-6)
        if used <= 0:
            continue
        state = "over" if used >= rule.capacity else "near" if used >= NEAR * rule.capacity else "ok"
        resets = 0 if rule.kind is Kind.LEASES else math.ceil(count.reset)
        yield Line(name, rule.name.rpartition(":")[0] or rule.name, used, rule.capacity, resets, state)


def _print(lines: list[Line], as_json: bool, nothing: str) -> None:
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines]))
    elif lines:
        print_table([HEADINGS, *(line.row() for line in lines)])
    else:
        click.echo(nothing)
