"""Runs checks with a time limit; an exception becomes a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Thread
from typing import Any

from ..errors import ConfigError, DependencyUnavailable
from . import own
from .finding import Check, Finding, Found, Where

SECONDS = 20.0
"""Maximum number of seconds for one check; each exchange has a shorter timeout."""

Progress = Callable[[str], object]


def silent(_title: str) -> None:
    """Report no progress."""


def run(
    checks: Sequence[Check], subject: Any, *, seconds: float = SECONDS, progress: Progress = silent
) -> Iterator[Finding]:
    """Run checks one after another and yield each finding once.

    :param subject: the argument of the check functions.
    :param seconds: the time limit for one check.
    :param progress: called with the title of each check before it runs.
    """
    seen: set[Finding] = set()
    for check in checks:
        progress(check.title)
        for finding in _bounded(check, subject, seconds):
            if finding not in seen:
                seen.add(finding)
                yield finding


def _bounded(check: Check, subject: Any, seconds: float) -> list[Finding]:
    results: list[list[Finding]] = []
    # A daemon thread, so that a store that hangs does not keep the process alive.
    thread = Thread(target=lambda: results.append(_findings(check, subject)), daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    what = f"{check.id} ({check.title}) took more than {seconds:g} seconds"
    return [own.SLOW.finding(Found(Where("check", check.id), what))]


def _findings(check: Check, subject: Any) -> list[Finding]:
    """Return the findings of one check, or the finding that it failed."""
    try:
        return [check.finding(found) for found in check.find(subject)]
    except DependencyUnavailable as error:
        return [own.UNAVAILABLE.finding(Found(Where("app", "dependency"), error.reason))]
    except ConfigError as error:
        return [own.CONFIG.finding(Found(Where("app", "configuration"), each)) for each in error.problems]
    except Exception as error:  # noqa: BLE001  a check reads code and files of the user, and must not hide the others
        # The message of the exception may contain a value of the configuration.
        what = f"{check.id} ({check.title}) failed with {type(error).__name__}"
        return [own.BROKEN.finding(Found(Where("check", check.id), what))]


def with_ignores(
    findings: Iterable[Finding], ignores: Mapping[str, str], known: Iterable[Check], made: Iterable[Check]
) -> list[Finding]:
    """Return the findings, with ignored ones marked, and findings about the ignores themselves.

    :param ignores: reasons by the id of a finding, or by id, colon and the name of its subject.
    :param known: all checks.
    :param made: the checks of this run; an ignore of another check may match no finding.
    """
    used: set[str] = set()
    result = [_accepted(finding, ignores, used) for finding in findings]
    ids, ran = {each.id for each in known}, {each.id for each in made}
    for name, reason in ignores.items():
        place = Where("ignore", name)
        if name.partition(":")[0] not in ids:
            result.append(own.UNKNOWN_IGNORE.finding(Found(place, f"unknown finding {name.partition(':')[0]}")))
        elif name not in used and name.partition(":")[0] in ran:
            result.append(own.UNUSED_IGNORE.finding(Found(place, f"{name} ({reason}) matches no finding of this run")))
    return result


def _accepted(finding: Finding, ignores: Mapping[str, str], used: set[str]) -> Finding:
    # A check that did not run cannot be ignored as harmless.
    if finding.check in own.OWN_CHECKS:
        return finding
    for name in (f"{finding.check.id}:{finding.where.name}", finding.check.id):
        if name in ignores:
            used.add(name)
            return finding.accepted(ignores[name])
    return finding
