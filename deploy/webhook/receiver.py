"""A receiver that forwards alerts to a chat channel, with only the standard library.

``ALERT_SECRET=... CHAT_WEBHOOK=https://chat.example.com/hooks/... python receiver.py 127.0.0.1 9099``

``ALERT_SECRET`` is the secret that ``SECURE_ML_ALERT_WEBHOOK_SECRET`` refers to. The chat accepts ``{"text": ...}``,
like Slack and Mattermost. Put a proxy with TLS in front of it unless the app runs on the same machine.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

TOLERANCE = 300
MAX_BYTES = 10_000
MAX_DIGITS = 12
SEEN: dict[str, float] = {}
ICONS = {
    "audit_degraded": "[!]",
    "audit_restored": "[ok]",
    "caller_blocked": "[!]",
    "limit_store_down": "[!]",
    "limit_store_up": "[ok]",
}


def is_signed(secret: bytes, headers: Message, body: bytes, now: float) -> bool:
    """Return True if body and timestamp are signed, and the timestamp is at most five minutes old."""
    timestamp = headers.get("X-Secure-ML-Timestamp") or ""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= MAX_DIGITS):
        return False
    expected = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    given = headers.get("X-Secure-ML-Signature") or ""
    return hmac.compare_digest(f"v1={expected}".encode(), given.encode()) and abs(now - int(timestamp)) <= TOLERANCE


def is_new(identity: str, now: float) -> bool:
    """Return True for the first post with an id, because a signed post can be replayed within the tolerance."""
    for old in [each for each, seen in list(SEEN.items()) if now - seen > 2 * TOLERANCE]:
        del SEEN[old]
    return SEEN.setdefault(identity, now) == now


def text_of(alert: Mapping[str, Any]) -> str:
    """Return the line for the channel, with markup escaped, because names come from callers."""
    icon = ICONS.get(alert["event"], "[i]")
    summary = str(alert["summary"]).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{icon} {alert['app']} on {alert['host']}: {summary}"


class Receiver(BaseHTTPRequestHandler):
    """Responds with 204 to forwarded alerts, and with 502 to alerts that should be posted again."""

    timeout = 5

    def do_POST(self) -> None:
        """Verify an alert and forward it."""
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


def main(arguments: Sequence[str]) -> None:
    """Serve until interrupted; exit with a message if something is missing."""
    if len(arguments) != 2 or not arguments[1].isdigit():  # noqa: PLR2004
        sys.exit("usage: python receiver.py HOST PORT")
    # Without these, each alert would fail.
    if missing := [name for name in ("ALERT_SECRET", "CHAT_WEBHOOK") if not os.environ.get(name)]:
        sys.exit(f"set the environment variable {' and '.join(missing)}")
    host, port = arguments[0], int(arguments[1])
    try:
        server = ThreadingHTTPServer((host, port), Receiver)
    except (OSError, OverflowError) as error:
        sys.exit(f"{host}:{port} cannot be used: {error}")
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
