"""Alerts that the receiver does not accept: retries, losses, logging, counting, and no waiting requests."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from flask import Flask

from alert_receiver import Receiver, counted, no_thread, receiving, sender
from flask_secure_ml.config.alerts import WebhookAddress
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.fetch import FetchError
from flask_secure_ml.observe.alerts import MAX_BLOCKS_WAITING, MAX_WAITING, Webhook, webhook
from flask_secure_ml.observe.alerts import sender as sending
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.signals import limit_store_changed
from flask_secure_ml.testing import FakeClock
from forks import run_forking
from servers import wait_until
from support import HTTPS, caller

pytestmark = pytest.mark.usefixtures("alert_secret")


@pytest.mark.parametrize(
    ("statuses", "results", "posts"),
    [
        ((503, 429, 200), ["sent"], 3),
        ((500, 500, 500), ["failed"], 3),
        ((404,), ["failed"], 1),
        ((302,), ["failed"], 1),
        ((307,), ["failed"], 1),
    ],
)
def test_statuses(clock: FakeClock, statuses: tuple[int, ...], results: list[str], posts: int) -> None:
    """Temporary failures are retried twice; a redirect is not followed."""
    found: list[str] = []
    pauses: list[float] = []
    with receiving(*statuses) as receiver:
        sender(receiver.url, clock, found.append, pause=pauses.append).limit_store_changed(None, up=False)
        wait_until(lambda: found == results and no_thread(), "the result")
        assert len(receiver.posts) == posts
        assert len({alert["id"] for alert in receiver.alerts}) == 1
    assert pauses == list(sending.PAUSES[: posts - 1])


def test_nobody_listens(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Each is counted, and the outage is logged once; so is its end."""
    found: list[str] = []
    with receiving() as receiver:
        gone = receiver.url
    alerts = sender(gone, clock, found.append)
    with caplog.at_level(logging.WARNING):
        for up in (False, True, False):
            alerts.limit_store_changed(None, up=up)
        wait_until(lambda: found == ["failed"] * 3, "the results")
    assert [each.message for each in caplog.records] == [
        "alerts cannot be posted: ConnectionRefusedError while fetching it"
    ]


def test_a_receiver_that_comes_back(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the end of the outage."""
    found: list[str] = []
    with receiving(404, 204) as receiver, caplog.at_level(logging.WARNING):
        alerts = sender(receiver.url, clock, found.append)
        for up in (False, True):
            alerts.limit_store_changed(None, up=up)
        wait_until(lambda: found == ["failed", "sent"], "the results")
        wait_until(lambda: len(caplog.records) == 2, "the log")
    assert [each.message for each in caplog.records] == [
        "alerts cannot be posted: the receiver responded with status 404",
        "alerts are posted again",
    ]


def test_a_process_ends_while_alerts_wait() -> None:
    """It does not wait for a hanging receiver: the script has half a minute, sending all would take longer."""
    run_forking(
        """
import sys
sys.path.insert(0, "tests/shared")
os.environ["ALERT_SECRET"] = "9c1f5ae07b42d86e3f9d0b7c5a1846e2f3d97b60c8a5e412"
from alert_receiver import receiving
from flask_secure_ml.config.alerts import WebhookAddress
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.observe.alerts import Alerts, Webhook
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores.memory import MemoryStore

clock = SystemClock()
stack = receiving()
receiver = stack.__enter__()
receiver.answers.clear()
webhook = Webhook(WebhookAddress(receiver.url), SecretRing(Secret("env:ALERT_SECRET")), clock)
alerts = Alerts(webhook, "app", clock, MemoryStore(clock), lambda _: 60)
for _ in range(50):
    alerts.limit_store_changed(None, up=False)
assert receiver.arrived.acquire(timeout=10)
"""
    )


def test_a_receiver_that_hangs(alerting: Flask, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Requests are served meanwhile, one thread is used, and alerts beyond the queue are dropped."""
    receiver.answers.clear()
    limit_store_changed.send(alerting, up=False)
    assert receiver.arrived.acquire(timeout=10)
    for _ in range(MAX_WAITING + 3):
        limit_store_changed.send(alerting, up=True)
    assert alerting.test_client().get("/x", base_url=HTTPS, headers=caller()).status_code == 200
    assert sum(thread.name == "secure-ml-alerts" for thread in threading.enumerate()) == 1
    assert counted(alerting)["dropped"] >= 3
    assert sum("alerts cannot be posted" in each.message for each in caplog.records) == 1
    receiver.answers.set()
    assert len(receiver.wait(MAX_WAITING)) >= MAX_WAITING
    wait_until(no_thread, "the thread to end")


def test_strangers_leave_space(receiver: Receiver, clock: FakeClock) -> None:
    """However many networks are blocked while the receiver hangs, an outage is posted after them."""
    results: list[str] = []
    alerts = sender(receiver.url, clock, results.append)
    receiver.answers.clear()
    alerts.limit_store_changed(None, up=False)
    assert receiver.arrived.acquire(timeout=10)
    for number in range(MAX_WAITING + 3):
        stranger = f"10.0.{number}.1"
        alerts.record(Exchange("id", 0.0, 0.0, stranger, stranger, True, code="rate_limited"))
    assert results.count("dropped") == MAX_WAITING + 3 - MAX_BLOCKS_WAITING
    alerts.limit_store_changed(None, up=True)
    receiver.answers.set()
    wait_until(no_thread, "the thread to end")
    assert results.count("dropped") == MAX_WAITING + 3 - MAX_BLOCKS_WAITING
    assert results.count("sent") == MAX_BLOCKS_WAITING + 2


def test_an_address_that_may_not_be_connected_to(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a private IP address is not connected to, unless the setting allows it."""
    asked: list[bool] = []

    def send(url: str, *, private_network: bool, **options: Any) -> Any:
        asked.append(private_network)
        raise FetchError("its host has no allowed IP address")

    with receiving() as receiver:
        found: list[str] = []
        https = receiver.url.replace("http:", "https:")
        sender(https, clock, found.append).limit_store_changed(None, up=False)
        wait_until(lambda: found == ["failed"], "the result")
        assert not receiver.arrived.acquire(blocking=False)
    monkeypatch.setattr(webhook, "send", send)
    ring = SecretRing(Secret("env:ALERT_SECRET"))
    for private in (True, False):
        with pytest.raises(FetchError):
            Webhook(WebhookAddress("https://a.example", private), ring, clock).post(b"")
    assert asked == [True, False]


def test_a_secret_that_is_gone(clock: FakeClock, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    """No alert is sent unsigned."""
    found: list[str] = []
    alerts = sender(receiver.url, clock, found.append)
    monkeypatch.delenv("ALERT_SECRET")
    alerts.limit_store_changed(None, up=False)
    wait_until(lambda: found == ["failed"], "the result")
    assert receiver.posts == []


def test_no_thread_can_be_started(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is not affected; waiting alerts are sent with the next one."""
    alerts = sender(receiver.url, clock)

    def full(_thread: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        alerts.limit_store_changed(None, up=False)
    assert "no thread can be started" in caplog.text
    alerts.limit_store_changed(None, up=True)
    assert [each["event"] for each in receiver.wait(2)] == ["limit_store_down", "limit_store_up"]


def test_what_is_noted_is_bounded(clock: FakeClock, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many networks are blocked."""
    monkeypatch.setattr(sending, "MAX_NOTED", 10)
    alerts = sender(receiver.url, clock)
    for number in range(50):
        alerts._note(str(number), clock.now() + 60)
    assert len(alerts._waiting.get().noted) == 10


def test_a_fork_while_one_is_posted() -> None:
    """The child has its own queue, and sends its own alerts, not those of its parent."""
    run_forking(
        """
import sys
sys.path.insert(0, "tests/shared")
os.environ["ALERT_SECRET"] = "9c1f5ae07b42d86e3f9d0b7c5a1846e2f3d97b60c8a5e412"
from alert_receiver import receiving
from flask_secure_ml.config.alerts import WebhookAddress
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.observe.alerts import Alerts, Webhook
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores.memory import MemoryStore

clock = SystemClock()
with receiving() as receiver:
    webhook = Webhook(WebhookAddress(receiver.url), SecretRing(Secret("env:ALERT_SECRET")), clock)
    done = threading.Event()
    alerts = Alerts(webhook, "app", clock, MemoryStore(clock), lambda _: 60, count=lambda _: done.set())
    receiver.answers.clear()
    alerts.limit_store_changed(None, up=False)
    receiver.arrived.acquire(timeout=10)
    alerts.limit_store_changed(None, up=False)
    lock = alerts._waiting.get().lock
    lock.acquire()

    def work():
        done.clear()
        alerts.limit_store_changed(None, up=True)
        assert done.wait(8)

    child = fork(work)
    lock.release()
    receiver.answers.set()
    ended(child)
    found = receiver.wait(3)
    assert sorted(each["event"] for each in found) == ["limit_store_down", "limit_store_down", "limit_store_up"], found
    assert {each["worker"] for each in found if each["event"] == "limit_store_up"} == {child}
"""
    )
