"""The recorder that detects alerts, queues them, and posts each once."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from ...errors import DependencyUnavailable
from ...exchange import Exchange
from ...fetch import FetchError
from ...principal import Clock, network_of
from ...refresh import QUIET, Outage, PerProcess
from ..request_log.entry import clean
from .alert import Alert
from .webhook import Webhook

if TYPE_CHECKING:
    from ...stores import SharedStore

log: logging.Logger = logging.getLogger(__name__)

MAX_WAITING, MAX_BLOCKS_WAITING = 200, 150
"""Maximum length of the queue, and maximum number of network blocks in it, which anonymous clients can cause; further
alerts are dropped."""

MAX_NOTED = 10_000
"""Maximum number of blocks and penalties that one process remembers as posted."""

PAUSES = (1.0, 5.0)
"""Seconds between attempts to post an alert."""

_SPACE = "alerts"
_OF_THE_MACHINE = frozenset({"audit_degraded", "audit_restored"})
_UNCONFIRMED = 10.0
_MARGIN = 2.0
_RETRIED = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


class _Waiting:
    """The queued alerts of one process, and the blocks and penalties that were already posted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.alerts: deque[Alert] = deque()
        self.running = False
        # The time until which a block or penalty is not posted again.
        self.noted: dict[str, float] = {}


class Alerts:
    """Detects alerts and posts each once.

    It is a recorder of requests and a receiver of the signals ``limit_store_changed`` and ``audit_log_changed``.

    :param webhook: posts the alerts.
    :param name: of the app.
    :param clock: provides the time of alerts, and of repetitions.
    :param store: decides which worker posts.
    :param blocked_for: returns the remaining seconds of a network's block; 0 if it is not blocked.
    :param block_after: the number of the penalty that is a block; 0 for none.
    :param count: counts the result of each alert: ``sent``, ``failed`` or ``dropped``.
    :param pause: waits for the given number of seconds.
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
        """Queue an alert for a request that was rejected because of a penalty or block."""
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
            # It may be a block, too many wrong secrets for one key, or a rejection by the app: the thread checks.
            self._once("network_blocked", network_of(exchange.client), 0.0)

    def limit_store_changed(self, _app: object, *, up: bool) -> None:
        """Queue an alert for an outage of the limit store or its end; a signal receiver."""
        self._put(Alert("limit_store_up" if up else "limit_store_down", self._clock.now()))

    def audit_log_changed(self, _app: object, *, up: bool, message: str) -> None:
        """Queue an alert for a degraded audit log or its recovery; a signal receiver."""
        event = "audit_restored" if up else "audit_degraded"
        self._put(Alert(event, self._clock.now(), explanation=clean(message)))

    def anomaly(self, signal: str, subject: str, explanation: str, penalty: str = "") -> None:
        """Queue an alert for an anomaly.

        :param penalty: ``throttle`` or ``block`` if the subject is rejected for it.
        """
        now, name = self._clock.now(), clean(subject)
        self._put(Alert("anomaly_detected", now, name, signal=signal, explanation=explanation, penalty=penalty))

    def _once(self, event: str, subject: str, seconds: float, strikes: int = 0, *, extends: bool = False) -> None:
        """Queue an alert, unless it was already posted.

        :param extends: the alert extends an existing block, which is not posted again.
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
        most = MAX_BLOCKS_WAITING if alert.event == "network_blocked" else MAX_WAITING
        with waiting.lock:
            fits = len(waiting.alerts) < most
            if fits:
                waiting.alerts.append(alert)
            starts = not waiting.running
            waiting.running = True
        if not fits:
            self._lost("dropped", f"{most} are queued")
        if starts:
            self._start(waiting)

    def _start(self, waiting: _Waiting) -> None:
        # Looked up here, because gevent may have replaced it after this module was imported.
        thread = threading.Thread(target=self._run, args=(waiting,), name="secure-ml-alerts", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The thread limit of the system. The queue is posted with the next alert.
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
        if not self._claim(alert):
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
        """Return True for one of the workers that share a store; for each of them while it is down."""
        if alert.event in _OF_THE_MACHINE:
            name, lasts = f"{alert.event}:{socket.gethostname()}:{alert.explanation}", QUIET
        elif alert.seconds:
            name, lasts = _name(alert.event, alert.subject, alert.strikes), float(alert.seconds)
        else:
            return True
        # It expires before the block, which may be followed immediately by another one.
        seconds = max(1.0, lasts - _MARGIN)
        try:
            return self._store.add(_SPACE, name, seconds)
        except DependencyUnavailable:
            return True

    def _attempt(self, body: bytes) -> tuple[str, bool]:
        """Post once; return the reason of a failure or an empty string, and whether to retry."""
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
    """Return the key of an alert that is posted once: each penalty of a caller, and each block."""
    return f"{event}:{strikes if event == 'caller_penalized' else 0}:{subject}"
