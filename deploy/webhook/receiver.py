"""A receiver of alerts that passes them on to a chat channel. It needs nothing but Python.

``ALERT_SECRET=... CHAT_WEBHOOK=https://chat.example.com/hooks/... python receiver.py 127.0.0.1 9099``

``ALERT_SECRET`` is what ``SECURE_ML_ALERT_WEBHOOK_SECRET`` refers to. The chat takes ``{"text": ...}``, as Slack and
Mattermost do. Put a proxy with TLS in front of it unless the app runs on the same machine.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

TOLERANCE = 300
MAX_BYTES = 10_000
MAX_DIGITS = 12
SEEN: dict[str, float] = {}


def is_signed(secret: bytes, headers: Message, body: bytes, now: float) -> bool:
    """Return True if the body and its timestamp are signed, and the timestamp is at most five minutes off."""
    timestamp = headers.get("X-Secure-ML-Timestamp") or ""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= MAX_DIGITS):
        return False
    expected = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    given = headers.get("X-Secure-ML-Signature") or ""
    return hmac.compare_digest(f"v1={expected}".encode(), given.encode()) and abs(now - int(timestamp)) <= TOLERANCE


def is_new(identity: str, now: float) -> bool:
    """Return True for the first post with an id: a signed one can be sent again within the tolerance."""
    for old in [each for each, seen in list(SEEN.items()) if now - seen > 2 * TOLERANCE]:
        del SEEN[old]
    return SEEN.setdefault(identity, now) == now


def text_of(alert: Mapping[str, Any]) -> str:
    """Return the line for the channel. Names come from callers, so what a chat would format is escaped."""
    icon = {"limit_store_down": "[!]", "caller_blocked": "[!]", "limit_store_up": "[ok]"}.get(alert["event"], "[i]")
    summary = str(alert["summary"]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{icon} {alert['app']} on {alert['host']}: {summary}"


class Receiver(BaseHTTPRequestHandler):
    """Responds with 204 to what was passed on, and with 502 to what should be posted again."""

    timeout = 5

    def do_POST(self) -> None:
        """Verify an alert and pass it on."""
        length = self.headers.get("Content-Length") or ""
        if not (length.isdigit() and int(length) <= MAX_BYTES):
            return self._respond(413)
        body, now = self.rfile.read(int(length)), time.time()
        if not is_signed(os.environ["ALERT_SECRET"].encode(), self.headers, body, now):
            return self._respond(401)
        alert = json.loads(body)
        if not is_new(alert["id"], now):
            return self._respond(204)
        data = json.dumps({"text": text_of(alert)}).encode()
        try:
            chat = Request(os.environ["CHAT_WEBHOOK"], data, {"Content-Type": "application/json"})  # noqa: S310
            with urlopen(chat, timeout=1.5):  # noqa: S310  a configured URL
                return self._respond(204)
        except OSError:
            del SEEN[alert["id"]]
            return self._respond(502)

    def _respond(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Receiver).serve_forever()
