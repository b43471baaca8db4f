"""Running checks: one that fails, hangs or cannot read something hides no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Event
from typing import Any

from flask_secure_ml.checks.finding import Check, Found, Severity, Where
from flask_secure_ml.checks.run import run, with_ignores
from flask_secure_ml.errors import DependencyUnavailable

PLACE = Where("app", "here")


def check(find: Any) -> Check:
    return Check("SML999", Severity.WARNING, "A test", "It is tested.", "nothing", find)


def reports(*finds: Any, seconds: float = 10) -> list[tuple[str, str]]:
    findings = run([check(each) for each in finds], None, seconds=seconds)
    return [(each.check.id, each.what) for each in findings]


def one(_subject: Any) -> Iterator[Found]:
    yield Found(PLACE, "one")


def test_a_check_that_fails() -> None:
    """Its kind of error is named, not its message, and the next check is made."""

    def fails(_subject: Any) -> Iterable[Found]:
        raise KeyError("hunter2")

    assert reports(fails, one) == [("SML004", "SML999 (A test) failed with KeyError"), ("SML999", "one")]


def test_a_check_that_hangs() -> None:
    """It is given up at its time limit, and the next check is made."""
    released = Event()

    def hangs(_subject: Any) -> Iterable[Found]:
        released.wait()
        return ()

    try:
        assert reports(hangs, seconds=0.1)[0][0] == "SML005"
        assert reports(one) == [("SML999", "one")]
    finally:
        released.set()


def test_what_is_unavailable() -> None:
    """The reason is reported once, however many checks need it."""

    def needs(_subject: Any) -> Iterable[Found]:
        raise DependencyUnavailable("the store is down")

    assert reports(needs, needs) == [("SML009", "the store is down")]


def test_progress() -> None:
    titles: list[str] = []
    list(run([check(one)], None, progress=titles.append))
    assert titles == ["A test"]


def test_the_narrower_ignore_counts() -> None:
    """An ignore for one location takes precedence over a general one, which then matches nothing."""
    made = check(one)
    reasons = {"SML999": "all", "SML999:here": "this"}
    found = with_ignores([made.finding(Found(PLACE, "one"))], reasons, [made], [made])
    assert [(each.check.id, each.ignored) for each in found] == [("SML999", "this"), ("SML007", "")]


def test_an_ignore_of_a_check_that_was_not_made() -> None:
    """It is for runs with ``--online`` or ``--url``, so it is not reported."""
    made = check(one)
    assert with_ignores([], {"SML999": "only with --url"}, [made], []) == []
    assert [each.check.id for each in with_ignores([], {"SML999": "why"}, [], [])] == ["SML006"]
