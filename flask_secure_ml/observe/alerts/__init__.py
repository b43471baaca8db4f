"""Alerts that are posted to a webhook (``SECURE_ML_ALERT_WEBHOOK``).

A request only appends to a bounded queue. One thread of each process posts; it starts with the first alert in the queue
and ends with the last. It also queries the store: whether a network is blocked, and whether another worker has already
posted the alert.

Each post is signed with HMAC-SHA-256 over the timestamp and the body; receivers verify it with :func:`verify_alert`.
"""

from __future__ import annotations

from .alert import Alert
from .sender import MAX_BLOCKS_WAITING, MAX_WAITING, Alerts
from .webhook import Webhook, signature_of, verify_alert

__all__ = ["MAX_BLOCKS_WAITING", "MAX_WAITING", "Alert", "Alerts", "Webhook", "signature_of", "verify_alert"]
