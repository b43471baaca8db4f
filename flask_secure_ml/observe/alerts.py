"""Alerts: posts to one URL what an operator should know now (``SECURE_ML_ALERT_WEBHOOK``).

A request only appends to a bounded queue. One thread of each process posts; it starts with the first alert in the
queue and ends with the last. It also asks what only a store knows: whether a network is blocked, and whether another
worker has posted the same.

Each post is signed by HMAC-SHA-256 over the timestamp and the body; :func:`verify_alert` is the receiver's part.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..errors import DependencyUnavailable
from ..exchange import Exchange
from ..fetch import FetchError, Response, send
from ..principal import Clock, network_of
from ..refresh import Outage, PerProcess
from ..secrets import SecretRing
from .request_log.entry import clean

if TYPE_CHECKING:
    from ..config.alerts import WebhookAddress
    from ..stores import SharedStore

log: logging.Logger = logging.getLogger(__name__)

TIMESTAMP = "X-Secure-ML-Timestamp"
SIGNATURE = "X-Secure-ML-Signature"
TOLERANCE = 300
"""Seconds that a timestamp may be off."""

MAX_WAITING = 200
"""How many alerts wait to be posted; further ones are dropped."""

MAX_NOTED = 10_000
"""How many blocks and penalties one process knows to be posted."""

PAUSES = (1.0, 5.0)
"""Seconds between attempts to post one alert."""

_SPACE = "alerts"
_UNCONFIRMED = 10.0
_MARGIN = 2.0
_MAX_RESPONSE = 65_536
_RETRIED = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True)
class Alert:
    """What happened.

    :param event: ``network_blocked``, ``caller_penalized``, ``caller_blocked``, ``limit_store_down``,
        ``limit_store_up`` or ``anomaly_detected``.
    :param time: when, in seconds since the epoch.
    :param subject: the network or the caller.
    :param seconds: how long the block or the penalty lasts.
    :param strikes: how often the caller went on beyond its limits lately.
    :param signal: of an anomaly; with its explanation.
    """

    event: str
    time: float
    subject: str = ""
    seconds: int = 0
    strikes: int = 0
    signal: str = ""
    explanation: str = ""

    @property
    def summary(self) -> str:
        """One sentence."""
        return {
            "network_blocked": f"{self.subject} is blocked for {self.seconds} s: too many invalid credentials.",
            "caller_penalized": f"{self.subject} went on beyond its limits and is rejected for {self.seconds} s.",
            "caller_blocked": f"{self.subject} went on beyond its limits and is blocked for {self.seconds} s.",
            "limit_store_down": "The store of the limits is down.",
            "limit_store_up": "The store of the limits is up again.",
            "anomaly_detected": f"{self.subject}: {self.explanation}.",
        }[self.event]

    def members(self) -> dict[str, Any]:
        """Return the members of the JSON object that tell what happened."""
        found: dict[str, Any] = {"event": self.event, "summary": self.summary}
        found["time"] = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds")
        if self.event == "network_blocked":
            found |= {"network": self.subject, "seconds": self.seconds}
        elif self.event == "anomaly_detected":
            found |= {"subject": self.subject, "signal": self.signal}
        elif self.subject:
            found |= {"caller": self.subject, "seconds": self.seconds, "strikes": self.strikes}
        return found


class Webhook:
    """Posts signed JSON.

    :param secret: signs with its newest one, read for each post.
    :param clock: the timestamp.
    """

    def __init__(self, address: WebhookAddress, secret: SecretRing, clock: Clock) -> None:
        self._address = address
        self._secret = secret
        self._clock = clock

    def post(self, body: bytes) -> Response:
        """Post a body.

        :raises FetchError: there is no response, see :func:`~flask_secure_ml.fetch.send`.
        :raises ValueError: the secret cannot be read.
        """
        timestamp = str(int(self._clock.now()))
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP: timestamp,
            SIGNATURE: f"v1={signature_of(self._secret.newest(), timestamp, body)}",
        }
        address = self._address
        return send(
            address.url, body=body, headers=headers, private_network=address.private_network, max_bytes=_MAX_RESPONSE
        )


def signature_of(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the HMAC-SHA-256 (RFC 2104) of a timestamp, a dot and a body, in hexadecimal."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify_alert(secret: bytes, headers: Mapping[str, str], body: bytes, now: float | None = None) -> bool:
    """Return True if a post was signed with the secret within the last five minutes: for a receiver.

    It can be replayed within that time, so a receiver also ignores an ``id`` that it has seen.

    :param headers: of the post; names in any case.
    :param body: as it was sent.
    :param now: seconds since the epoch; the machine's time if None.
    """
    given = {name.lower(): value for name, value in headers.items()}
    timestamp = given.get(TIMESTAMP.lower(), "")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= len("253402300799")):
        return False
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE:
        return False
    expected = f"v1={signature_of(secret, timestamp, body)}"
    return hmac.compare_digest(expected.encode(), given.get(SIGNATURE.lower(), "").encode("utf-8", "surrogatepass"))


class _Waiting:
    """The alerts of one process that are not posted yet, and what it knows to be posted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.alerts: deque[Alert] = deque()
        self.running = False
        # Until when nothing more is posted of a block or a penalty.
        self.noted: dict[str, float] = {}


class Alerts:
    """Finds what is worth an alert, and posts it once.

    It is a recorder of requests and a receiver of the signal ``limit_store_changed``.

    :param webhook: posts.
    :param name: of the app.
    :param clock: the time of alerts, and how long one is not repeated.
    :param store: where workers agree who posts.
    :param blocked_for: returns for how many seconds a network is still blocked; 0 if it is not.
    :param block_after: the strike that blocks a caller; 0 for none.
    :param count: counts what became of each alert: ``sent``, ``failed`` or ``dropped``.
    :param pause: waits so many seconds.
    """

    def __init__(
        self,
        webhook: Webhook,
        name: str,
        clock: Clock,
        store: SharedStore,
        blocked_for: Callable[[str], int],
        *,
        block_after: int = 0,
        count: Callable[[str], object] = lambda _result: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._webhook = webhook
        self._name = name
        self._clock = clock
        self._store = store
        self._blocked_for = blocked_for
        self._block_after = block_after
        self._count = count
        self._pause = pause
        self._outage = Outage("alerts cannot be posted", "alerts are posted again", clock.monotonic)
        self._waiting = PerProcess(_Waiting)

    def record(self, exchange: Exchange) -> None:
        """Note whose request was rejected for a penalty or a block."""
        if exchange.code != "rate_limited":
            return
        if exchange.limits is not None:
            verdicts = exchange.limits.outcome.verdicts
            penalty, strikes = max((each.penalty, each.strikes) for each in verdicts)
            if penalty:
                blocked = 0 < self._block_after <= strikes
                event = "caller_blocked" if blocked else "caller_penalized"
                self._once(event, clean(exchange.caller), penalty, strikes, extends=blocked)
        else:
            # For a block, for too many wrong secrets for one key, or by the app: the thread asks.
            self._once("network_blocked", network_of(exchange.client), 0.0)

    def limit_store_changed(self, _app: object, *, up: bool) -> None:
        """Note an outage of the store of the limits, or its end: a receiver of the signal."""
        self._put(Alert("limit_store_up" if up else "limit_store_down", self._clock.now()))

    def anomaly(self, signal: str, subject: str, explanation: str) -> None:
        """Post an anomaly of traffic."""
        alert = Alert("anomaly_detected", self._clock.now(), clean(subject), signal=signal, explanation=explanation)
        self._put(alert)

    def _once(self, event: str, subject: str, seconds: float, strikes: int = 0, *, extends: bool = False) -> None:
        """Put an alert into the queue, unless it is noted.

        :param extends: a caller that goes on in a block extends it, which is no news.
        """
        noted, name, now = self._waiting.get().noted, _name(event, subject, strikes), self._clock.monotonic()
        known = now < noted.get(name, -math.inf)
        if not known or extends:
            self._note(name, now + (seconds or _UNCONFIRMED))
        if not known:
            self._put(Alert(event, self._clock.now(), subject, math.ceil(seconds), strikes))

    def _note(self, name: str, until: float) -> None:
        waiting = self._waiting.get()
        with waiting.lock:
            if len(waiting.noted) >= MAX_NOTED and name not in waiting.noted:
                waiting.noted.pop(next(iter(waiting.noted)))
            waiting.noted[name] = until

    def _put(self, alert: Alert) -> None:
        waiting = self._waiting.get()
        with waiting.lock:
            fits = len(waiting.alerts) < MAX_WAITING
            if fits:
                waiting.alerts.append(alert)
            starts = not waiting.running
            waiting.running = True
        if not fits:
            self._lost("dropped", f"{MAX_WAITING} are waiting")
        if starts:
            self._start(waiting)

    def _start(self, waiting: _Waiting) -> None:
        # Looked up now: gevent may have replaced it since this module was loaded.
        thread = threading.Thread(target=self._run, args=(waiting,), name="secure-ml-alerts", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The limit of the system. What waits is posted with the next alert.
            waiting.running = False
            self._outage.failed("no thread can be started")

    def _run(self, waiting: _Waiting) -> None:
        while True:
            with waiting.lock:
                if not waiting.alerts:
                    waiting.running = False
                    return
                alert = waiting.alerts.popleft()
            try:
                self._deliver(alert)
            except Exception:
                log.exception("an alert failed")
                self._count("failed")

    def _deliver(self, alert: Alert) -> None:
        if alert.event == "network_blocked":
            try:
                seconds = self._blocked_for(alert.subject)
            except DependencyUnavailable as error:
                self._lost("failed", error.reason)
                return
            if not seconds:
                return
            self._note(_name(alert.event, alert.subject), self._clock.monotonic() + seconds)
            alert = Alert(alert.event, alert.time, alert.subject, seconds)
        if alert.seconds and not self._claim(alert):
            return
        identity = {"id": secrets.token_hex(16), "app": self._name, "host": socket.gethostname(), "worker": os.getpid()}
        body = json.dumps(identity | alert.members()).encode()
        for pause in (*PAUSES, None):
            reason, retried = self._attempt(body)
            if not reason:
                self._count("sent")
                self._outage.ended()
                return
            if pause is None or not retried:
                self._lost("failed", reason)
                return
            self._pause(pause)

    def _claim(self, alert: Alert) -> bool:
        """Return True to one worker of those that share a store; to each while it is down."""
        # It ends before the block does, which may be followed by another one at once.
        seconds = max(1.0, alert.seconds - _MARGIN)
        try:
            return self._store.add(_SPACE, _name(alert.event, alert.subject, alert.strikes), seconds)
        except DependencyUnavailable:
            return True

    def _attempt(self, body: bytes) -> tuple[str, bool]:
        """Post; return why it failed, or an empty string, and whether another attempt could succeed."""
        try:
            status = self._webhook.post(body).status
        except FetchError as error:
            return str(error), True
        except ValueError as error:
            return str(error), False
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return "", False
        retried = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRIED
        return f"the receiver responded with status {status}", retried

    def _lost(self, result: str, reason: str) -> None:
        self._count(result)
        self._outage.failed(reason)


def _name(event: str, subject: str, strikes: int = 0) -> str:
    """Return what is posted once: each penalty of a caller, and each block."""
    return f"{event}:{strikes if event == 'caller_penalized' else 0}:{subject}"
