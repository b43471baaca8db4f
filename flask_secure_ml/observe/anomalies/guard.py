"""Rejects callers with a penalty for unusual usage."""

from __future__ import annotations

import math

from flask import Request

from ...errors import AbnormalUsage
from ...exchange import Exchange
from ...pipeline import Stage
from ...principal import network_of
from .detector import NETWORK, PRINCIPAL
from .penalties import Penalties


class AnomalyGuard:
    """Rejects the requests of callers with a penalty.

    The penalty of a network applies to its anonymous requests only: a valid credential passes.

    :param exempt: the endpoints that penalties do not apply to.
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
        if exchange.endpoint in self._exempt or not len(self._penalties):
            return
        principal = exchange.principal
        if principal is None:
            penalty = self._penalties.get(NETWORK, network_of(exchange.client))
        else:
            penalty = self._penalties.get(PRINCIPAL, principal.id)
        seconds = 0 if penalty is None else math.ceil(self._penalties.left_of(penalty))
        if penalty is not None and seconds:
            reason = f"unusual usage ({penalty.signal}); rejected for {seconds} s"
            raise AbnormalUsage(reason, headers=(("Retry-After", str(seconds)),))
