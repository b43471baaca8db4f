"""Rejecting callers whose usage was unusual, for a time."""

from __future__ import annotations

import math
from collections import OrderedDict

from flask import Request

from ...errors import AbnormalUsage
from ...exchange import Exchange
from ...pipeline import Stage
from ...principal import Clock, network_of
from ...refresh import process_lock
from .detector import MAX_NETWORKS, MAX_PRINCIPALS

THROTTLE = "throttle"
BLOCK = "block"
SECONDS = {THROTTLE: 300, BLOCK: 3_600}
"""For how long a caller is rejected, by action."""


class Penalties:
    """Until when callers of this process are rejected, at most as many as are scored."""

    def __init__(self, clock: Clock, max_principals: int = MAX_PRINCIPALS, max_networks: int = MAX_NETWORKS) -> None:
        self._monotonic = clock.monotonic
        self._lock = process_lock()
        # Apart, so that nobody ends the penalty of a principal with those of many networks.
        self._until: dict[bool, OrderedDict[str, float]] = {True: OrderedDict(), False: OrderedDict()}
        self._most = {True: max_principals, False: max_networks}

    def __len__(self) -> int:
        return sum(map(len, self._until.values()))

    def add(self, subject: str, seconds: float, *, is_principal: bool) -> None:
        """Reject a caller for so many seconds; a longer penalty stays."""
        until, end = self._until[is_principal], self._monotonic() + seconds
        with self._lock.get():
            until[subject] = max(until.get(subject, end), end)
            until.move_to_end(subject)
            if len(until) > self._most[is_principal]:
                until.popitem(last=False)

    def left(self, subject: str, *, is_principal: bool) -> float:
        """Return for how many seconds a caller is still rejected; 0 if it is not."""
        until = self._until[is_principal].get(subject)
        return 0.0 if until is None else max(0.0, until - self._monotonic())


class AnomalyGuard:
    """Rejects the requests of callers with a penalty.

    That of a network holds for its anonymous requests only: a valid credential passes.

    :param exempt: the endpoints that no penalty holds for.
    """

    name = "anomalies"
    stage = Stage.LIMIT

    def __init__(self, penalties: Penalties, exempt: frozenset[str] = frozenset()) -> None:
        self._penalties = penalties
        self._exempt = exempt

    def check(self, request: Request, exchange: Exchange) -> None:
        """Let the request pass, or raise.

        :raises AbnormalUsage: the caller has a penalty.
        """
        if not len(self._penalties) or exchange.endpoint in self._exempt:
            return
        principal = exchange.principal
        if principal is None:
            left = self._penalties.left(network_of(exchange.client), is_principal=False)
        else:
            left = self._penalties.left(principal.id, is_principal=True)
        if left > 0:
            seconds = math.ceil(left)
            raise AbnormalUsage(
                f"the usage was unusual; rejected for {seconds} s more", headers=(("Retry-After", str(seconds)),)
            )
