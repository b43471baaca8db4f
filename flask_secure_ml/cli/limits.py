"""``flask secure-ml limits``: shows usage, and clears counters, penalties and blocks."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime
from ipaddress import ip_address

import click
from flask.cli import AppGroup

from ..config.plans import Plan
from ..limits.counters import Counters, Verdict
from ..limits.rules import Kind, Rule, RuleSet, key_of
from ..limits.usage import Used, day_name, day_number, day_of
from ..observe.request_log.entry import clean
from ..state import AppState
from .context import audit_event, command_state, json_option, missing, mistakes_as_messages, one_line, print_table

limits: AppGroup = AppGroup("limits", help="Show the usage of limits, and clear counters, penalties and blocks.")

NEAR = 0.8
"""Fraction of a limit from which a caller is near it."""

HEADINGS = ("Caller", "Limit", "Used", "Of", "Resets in", "State")
IN_MEMORY = (
    "limits are counted in the memory of each worker, which commands cannot read; set SECURE_ML_STORE_URI to "
    "sqlite:/path or redis://host, or restart the workers to clear them"
)


NOT_COUNTED = "usage is not counted; set SECURE_ML_USAGE_DAYS to the number of days to keep it"
NOBODY = {False: "No caller is near a limit.", True: "No caller has used a limit."}
GROUPS = ("client", "plan", "route", "day")
SUMS = ("requests", "rows", "cost")
API_KEY = "api_key:"
_DATE = click.DateTime(["%Y-%m-%d"])


@dataclass(frozen=True)
class Line:
    """The usage of one limit by a caller.

    :param resets_in: whole seconds until the window ends.
    :param state: ``ok``, ``near``, ``over``, ``waiting`` for a caller with a penalty, or ``blocked``.
    """

    caller: str
    limit: str
    used: int
    amount: int
    resets_in: int
    state: str

    def row(self) -> tuple[str, ...]:
        """Return the cells of a table row."""
        wait = f"{self.resets_in} s" if self.resets_in else "-"
        return self.caller, self.limit, str(self.used), str(self.amount), wait, self.state


@limits.command("show")
@click.argument("principal")
@json_option
def show(principal: str, as_json: bool) -> None:
    """Show the usage of each limit by PRINCIPAL.

    PRINCIPAL is the member "principal" of the request log; for an anonymous caller, it is like address:192.0.2.1.
    """
    state = command_state()
    with mistakes_as_messages():
        choices = Choices(state).of(principal)
        found = list(_lines(_shared(state), principal, key_of("caller", principal), choices, _block_after(state)))
    _print(found, as_json, f"{principal} has no usage{_hint(principal)}.")


@limits.command("list")
@click.option("--all", "everyone", is_flag=True, help="List all callers, not only those near or over a limit.")
@json_option
def list_limits(everyone: bool, as_json: bool) -> None:
    """List callers that are near or over a limit, waiting or blocked."""
    state = command_state()
    with mistakes_as_messages():
        counters, choices = _shared(state), Choices(state)
        callers = sorted(counters.callers().items(), key=lambda item: item[1])
        found = [
            line for key, name in callers for line in _lines(counters, name, key, choices.of(name), _block_after(state))
        ]
    _print([line for line in found if everyone or line.state != "ok"], as_json, NOBODY[everyone])


@limits.command("clear")
@click.argument("principal")
@json_option
def clear(principal: str, as_json: bool) -> None:
    """Remove the counters, the penalty and the block of PRINCIPAL.

    A worker that has just rejected the caller applies this within a second.
    """
    with mistakes_as_messages():
        cleared = _shared(command_state()).clear(key_of("caller", principal))
    if cleared:
        audit_event("limits_cleared", subject=clean(principal))
    if as_json:
        click.echo(json.dumps({"principal": principal, "cleared": cleared}))
    else:
        click.echo(one_line(f"cleared: {principal}" if cleared else f"{principal} has no counters{_hint(principal)}"))


@limits.command("usage")
@click.option("--since", type=_DATE, help="The first day (UTC). Default: the first day of this month.")
@click.option("--until", type=_DATE, help="The last day (UTC). Default: today.")
@click.option("--by", "groups", default="client", show_default=True, help="Any of client, plan, route and day.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
def usage(since: datetime | None, until: datetime | None, groups: str, as_csv: bool, as_json: bool) -> None:
    """Print the usage of callers: requests, rows and cost.

    Rows are the reserved amount, in the unit of "cost=" of each route. Cost is that amount after refunds and
    corrections. Requests that a limit rejected and requests of anonymous callers are not counted.
    """
    by = tuple(groups.split(","))
    if unknown := set(by) - set(GROUPS):
        raise click.BadParameter(f"{min(unknown)!r} is not one of {', '.join(GROUPS)}", param_hint="--by")
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are mutually exclusive")
    state = command_state()
    with mistakes_as_messages():
        counters = _shared(state)
        if not state.limiter.usage:
            raise missing("SECURE_ML_USAGE_DAYS", NOT_COUNTED)
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
        click.echo("No usage.")


def _hint(principal: str) -> str:
    """Return an explanation if a network was given instead of a caller."""
    with suppress(ValueError):
        ip_address(principal)
        return f"; an anonymous caller is address:{principal}, and the block of a network ends by itself"
    return ""


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


class Choices:
    """The rules that a caller can have on any route, under its plan or, if that is not known, under any plan."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._made: dict[str | None, list[RuleSet]] = {}

    def of(self, principal: str) -> list[RuleSet]:
        """Return rule sets that together have every rule; a rule of one name that differs by plan is in several."""
        plan = self._plan_of(principal)
        if plan not in self._made:
            plans = self._state.settings.plans
            self._made[plan] = self._rule_sets(plans.values() if plan is None else [plans[plan]])
        return self._made[plan]

    def _plan_of(self, principal: str) -> str | None:
        """Return the plan of an API key. Tokens say theirs in each request only."""
        keys = self._state.keys
        record = keys.get(principal.removeprefix(API_KEY)) if keys and principal.startswith(API_KEY) else None
        return record.plan if record is not None and record.plan in self._state.settings.plans else None

    def _rule_sets(self, plans: Iterable[Plan]) -> list[RuleSet]:
        variants: dict[str, list[Rule]] = {}
        for plan in plans:
            for rule in self._rules_under(plan):
                known = variants.setdefault(rule.name, [])
                if rule not in known:
                    known.append(rule)
        most = max(map(len, variants.values()), default=1)
        columns = ([each[number] for each in variants.values() if number < len(each)] for number in range(most))
        return [RuleSet(rules, backs_off=True) for rules in columns]

    def _rules_under(self, plan: Plan) -> Iterator[Rule]:
        for rule, _, declared in self._state.policies.declared():
            yield from self._state.limiter.tariffs.get(plan, declared.policy, rule.endpoint).caller.rules


def _block_after(state: AppState) -> int:
    backoff = state.settings.limit_backoff
    return 0 if backoff is None else backoff.block_after


def _shared(state: AppState) -> Counters:
    counters = state.limiter.counters
    if not counters.shared:
        raise missing("SECURE_ML_STORE_URI", IN_MEMORY)
    return counters


def _lines(counters: Counters, name: str, key: bytes, choices: list[RuleSet], block_after: int) -> Iterator[Line]:
    verdicts = [counters.peek(key, rules) for rules in choices]
    verdict = verdicts[0]
    if verdict.penalty:
        blocked = "blocked" if verdict.strikes >= block_after else "waiting"
        yield Line(name, "backoff", verdict.strikes, block_after, math.ceil(verdict.penalty), blocked)
    found: dict[str, Line] = {}
    for rules, verdict in zip(choices, verdicts, strict=True):
        for line in _counted(name, rules, verdict):
            found[line.limit] = min(line, found.get(line.limit, line), key=_fit)
    yield from found.values()


def _fit(line: Line) -> tuple[bool, int]:
    """Order lines of one limit under several plans: the least amount that the caller did not exceed is first."""
    exceeded = line.used > line.amount
    return exceeded, -line.amount if exceeded else line.amount


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
        click.echo(one_line(nothing))
