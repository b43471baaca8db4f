"""A webhook receiver on loopback, which can also fail or hang."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from flask_secure_ml.config.alerts import WebhookAddress
from flask_secure_ml.observe.alerts import Alerts, Webhook
from flask_secure_ml.principal import Clock
from flask_secure_ml.secrets import Secret, SecretRing
from flask_secure_ml.stores.memory import MemoryStore
from http_servers import QuietHandler, in_thread
from servers import wait_until
from support import HTTPS, caller


class Receiver:
    """The received alerts, and the statuses of the responses.

    :param statuses: the status for each alert; further ones get 204.
    """

    def __init__(self, statuses: tuple[int, ...] = ()) -> None:
        self.statuses = list(statuses)
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.answers = threading.Event()
        self.answers.set()
        self.arrived = threading.Semaphore(0)
        self.url = ""

    @property
    def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.posts]

    def wait(self, count: int) -> list[dict[str, Any]]:
        """Wait until there are this many alerts, and return them."""
        wait_until(lambda: len(self.posts) >= count, f"{count} alerts, of which {len(self.posts)} came")
        return self.alerts

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.arrived.release()
        self.answers.wait(30)
        status = self.statuses.pop(0) if self.statuses else 204
        self.posts.append((dict(handler.headers), body))
        handler.send_response(status)
        if status in {301, 302, 307, 308}:
            handler.send_header("Location", f"{self.url}/elsewhere")
        handler.end_headers()


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    """Serve a receiver on a free port."""
    receiver = Receiver(statuses)

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            receiver.take(self)

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """Ignore errors: disconnecting clients are part of a test."""

    with in_thread(Server(("127.0.0.1", 0), Handler)) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/alerts?team=ml"
        try:
            yield receiver
        finally:
            receiver.answers.set()


def no_thread() -> bool:
    """Return True if no alert is waiting to be sent."""
    return not any(thread.name == "secure-ml-alerts" for thread in threading.enumerate())


def sender(url: str, clock: Clock, count: Callable[[str], object] = lambda _: None, **options: Any) -> Alerts:
    """Return a sender of alerts that signs with the secret in ``ALERT_SECRET`` and does not pause."""
    ring = SecretRing(Secret("env:ALERT_SECRET"))
    webhook = Webhook(WebhookAddress(url), ring, clock)
    store = options.pop("store", None) or MemoryStore(clock)
    options.setdefault("pause", lambda _: None)
    return Alerts(webhook, "app", clock, store, lambda _: 60, count=count, **options)


def counted(app: Flask) -> dict[str, float]:
    """Return the counts of an app by result."""
    text = app.test_client().get("/metrics", base_url=HTTPS, headers=caller("prometheus", "metrics")).text
    families = text_string_to_metric_families(text)
    samples = [each for family in families for each in family.samples if each.name == "secure_ml_alerts_total"]
    return {each.labels["result"]: each.value for each in samples}
