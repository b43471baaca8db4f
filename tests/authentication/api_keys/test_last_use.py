"""Noting uses: to the minute, in few writes, and never at the cost of a request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flask_secure_ml.authentication.api_keys.lifecycle import LastUse, Rarely, Uses, merged, parse_uses
from flask_secure_ml.errors import DependencyUnavailable


class Recorder:
    """Keeps the reported uses, or raises a given error."""

    def __init__(self) -> None:
        self.handed: list[Uses] = []
        self.error: Exception | None = None

    def __call__(self, uses: Uses) -> None:
        self.handed.append(dict(uses))
        if self.error is not None:
            raise self.error


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_once_a_minute(recorder: Recorder) -> None:
    """Uses of one key within a minute are one write."""
    last_use = LastUse(recorder)
    for when in (100.0, 100.5, 159.9, 160.0, 219.0):
        last_use.used("k1", when)
    assert recorder.handed == [{"k1": 100}, {"k1": 160}]


def test_once_a_second_for_all_keys(recorder: Recorder) -> None:
    """Uses of many keys within a second are handed on together."""
    last_use = LastUse(recorder)
    for number in range(5):
        last_use.used(f"k{number}", 100 + number / 10)
    last_use.used("k0", 101.0)
    assert recorder.handed == [{"k0": 100}, {f"k{number}": 100 for number in range(1, 5)}]


def test_failure_is_tried_again_after_a_minute(recorder: Recorder) -> None:
    """No use is lost and no error is raised."""
    last_use = LastUse(recorder)
    recorder.error = DependencyUnavailable("the store is down")
    for when in (100.0, 101.0, 130.0, 159.0):
        last_use.used("k1", when)
    recorder.error = None
    last_use.used("k2", 160.0)
    assert recorder.handed == [{"k1": 100}, {"k1": 100, "k2": 160}]


def test_failure_is_logged_once(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """The log does not fill; another failure, or the same one after a success, is logged again."""
    last_use = LastUse(recorder)
    down, full = DependencyUnavailable("the store is down"), OSError(28, "full")
    for minute, error in enumerate([down, down, full, full, None, full]):
        recorder.error = error
        last_use.used("k1", minute * 60.0)
    prefix = "the last use of API keys cannot be recorded: "
    assert [each.message for each in caplog.records] == [
        prefix + text for text in ("the store is down", "[Errno 28] full", "[Errno 28] full")
    ]


@pytest.mark.parametrize("error", [OSError(28, "full"), ValueError("damaged")], ids=["OSError", "ValueError"])
def test_any_failure_of_a_store(recorder: Recorder, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk and a damaged file are failures like another."""
    recorder.error = error
    LastUse(recorder).used("k1", 100.0)
    assert str(error) in caplog.text


def test_busy_is_no_failure(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """While another process writes, uses wait for a second, without a log message."""
    last_use = LastUse(recorder)
    recorder.error = BlockingIOError()
    last_use.used("k1", 100.0)
    recorder.error = None
    last_use.used("k1", 100.5)
    last_use.used("k1", 101.0)
    assert recorder.handed == [{"k1": 100}, {"k1": 100}]
    assert caplog.records == []


def test_newer_use_is_not_put_back(recorder: Recorder) -> None:
    """A retried use does not overwrite a newer one."""
    last_use = LastUse(recorder)

    def fail(uses: Uses) -> None:
        recorder.error = None
        last_use.used("k1", 200.0)
        raise OSError(28, "full")

    last_use._write = fail
    last_use.used("k1", 100.0)
    last_use._write = recorder
    last_use.used("k2", 300.0)
    assert recorder.handed == [{"k1": 200, "k2": 300}]


def test_clock_that_is_set_back(recorder: Recorder) -> None:
    """A clock that was a year ahead does not silence a key for a year."""
    last_use = LastUse(recorder)
    for when in (40_000_000.0, 100.0):
        last_use.used("k1", when)
    assert recorder.handed == [{"k1": 40_000_000}, {"k1": 100}]


def test_threads_lose_nothing(recorder: Recorder) -> None:
    """Every key of many threads is handed on."""
    last_use = LastUse(recorder)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: last_use.used(f"k{number}", 100.0), range(400)))
    last_use.used("end", 200.0)
    handed = [key_id for uses in recorder.handed for key_id in uses]
    assert sorted(handed) == sorted([*(f"k{number}" for number in range(400)), "end"])


def test_rarely() -> None:
    """Each kind has its own minute."""
    rarely = Rarely()
    asked = [("a", 0), ("a", 59), ("b", 59), ("a", 60), ("a", 61), ("b", 118), ("b", 119)]
    assert [rarely.due(kind, now) for kind, now in asked] == [True, False, True, True, False, False, True]


def test_merged() -> None:
    """The later instant of each key is kept."""
    assert merged({"a": 1, "b": 5}, {"b": 3, "c": 2, "a": 4}) == {"a": 4, "b": 5, "c": 2}


@pytest.mark.parametrize("when", ["5", 5.0, True, None, -1], ids=["text", "float", "true", "null", "negative"])
def test_wrong_instant(when: object) -> None:
    """An instant is a whole number of seconds."""
    assert parse_uses({"k1": 5}) == {"k1": 5}
    with pytest.raises(ValueError, match="whole number"):
        parse_uses({"k1": 5, "k2": when})
