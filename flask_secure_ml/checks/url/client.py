"""The HTTP client of the URL checks: it sends a limited number of unmodified requests and follows no redirects."""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

from ... import strictjson
from ...errors import PROBLEM_JSON
from ...fetch import shut_down_at, tls_reason
from ...secrets import SecretRing, client_secret_ring

MOST_REQUESTS = 100
"""Maximum number of connections in one run, including TLS handshakes."""

TIMEOUT = 10.0
"""Time limit of one exchange, including the TLS handshake, in seconds."""

MOST_BYTES = 1_000_000
USER_AGENT = "flask-secure-ml-check/1 (+https://github.com/flask-secure-ml/flask-secure-ml)"
_CHUNK = 65_536
_MOST_DIGITS = 15
_DEEPEST = 200
_KEY_PREFIX = "sml_"
# Rules of Flask are not percent-encoded.
_IN_TARGETS = "/?%:@!$&'()*+,;=~"


@dataclass(frozen=True)
class Reply:
    """A response, or why there is none.

    :param status: 0 for no response.
    :param fault: why there is no response.
    """

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    fault: str = ""

    def all(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for each, value in self.headers if each.lower() == name.lower()]

    def header(self, name: str) -> str:
        """Return the value of a header, or an empty string."""
        return ", ".join(self.all(name))

    @cached_property
    def problem(self) -> dict[str, Any]:
        """The members of the problem document; empty if the body is not one."""
        if not self.header("Content-Type").lower().startswith(PROBLEM_JSON):
            return {}
        return json_object(self.body)

    def is_ours(self, code: str) -> bool:
        """Return True if this package sent the response with this code, and no proxy changed it."""
        return (
            self.header("X-Error-Code") == code
            and len(self.header("X-Request-ID")) > 0
            and (not self.problem or self.problem.get("code") == code)
        )

    @property
    def is_limited(self) -> bool:
        """Whether the app rejected the request because of a limit of the caller."""
        return any(map(self.is_ours, ("rate_limited", "quota_exceeded", "too_many_in_flight")))

    @property
    def remaining(self) -> int | None:
        """The remaining requests of the tightest limit; None without the header ``RateLimit``."""
        left = [each.partition(";r=")[2].partition(";")[0] for each in self.header("RateLimit").split(",")]
        numbers = [int(each) for each in left if each.isdecimal() and len(each) <= _MOST_DIGITS]
        return min(numbers, default=None)

    def shown(self) -> str:
        """Return a short description: the status, and the error code or content type."""
        if not self.status:
            return f"no response ({self.fault})"
        code = self.header("X-Error-Code")
        kind = self.header("Content-Type").partition(";")[0] or "no content type"
        return f"status {self.status}" + (f", {code}" if code else f", {kind} without X-Error-Code")


@dataclass
class Client:
    """Sends requests to one service.

    :param url: its base URL, ``https:``, or ``http:`` on loopback.
    :param credential: a reference to an API key or an access token; None for anonymous requests only.
    :param ca_file: the certificate authorities to verify the server with, instead of those of the system.
    :param most: the maximum number of connections.
    :param timeout: seconds for one exchange, including the TLS handshake.
    :raises ValueError: the URL cannot be used.
    """

    url: str
    credential: SecretRing | None = None
    ca_file: str | None = None
    most: int = MOST_REQUESTS
    timeout: float = TIMEOUT
    sent: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Check the URL."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ValueError("must be a URL such as https://models.example.com, without a user and a query")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("must begin with https:, because requests carry a credential")
        self.secure: bool = parts.scheme == "https"
        self.host: str = parts.hostname
        self.port: int = parts.port or (443 if self.secure else 80)
        self.authority: str = parts.netloc
        self.prefix: str = parts.path.rstrip("/")

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The TLS context that verifies the server."""
        return ssl.create_default_context(cafile=self.ca_file)

    def send(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        authenticated: bool = False,
        host: str = "",
        clear_text_port: int = 0,
    ) -> Reply:
        """Send one request, and return the response or the reason for its absence.

        :param host: the value of ``Host`` instead of the real one.
        :param clear_text_port: if given, send the request to this port without TLS and without a credential.
        """
        given = [("User-Agent", USER_AGENT), ("Accept", "*/*"), ("Connection", "close"), *headers]
        if authenticated and not clear_text_port:
            given.append(self._authorization())
        if body is not None:
            given += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        try:
            with self.connect(clear_text_port) as channel:
                target = quote(self.prefix + path, safe=_IN_TARGETS)
                return _exchange(channel, method, target, host or self.authority, given, body)
        except ssl.SSLCertVerificationError as error:
            return Reply(fault=f"its certificate is not valid: {error.verify_message}")
        except (OSError, HTTPException, ValueError) as error:
            fault = f"{type(error).__name__}{tls_reason(error)}"
            return Reply(fault=str(error) if isinstance(error, TooManyError) else fault)

    @contextmanager
    def connect(
        self, clear_text_port: int = 0, context: ssl.SSLContext | None = None, seconds: float | None = None
    ) -> Iterator[socket.socket]:
        """Yield a connection, with TLS unless a clear-text port is given.

        :param seconds: the connection is shut down after this time, even if the server keeps sending; None for the
            default.
        :raises OSError: the connection fails or is shut down, or too many were opened.
        """
        if self.sent >= self.most:
            raise TooManyError(f"{self.most} requests were sent, which is the maximum for one run")
        self.sent += 1
        ends = time.monotonic() + (self.timeout if seconds is None else seconds)
        with closing(socket.create_connection((self.host, clear_text_port or self.port), self.timeout)) as plain:
            if self.secure and not clear_text_port:
                with (
                    (context or self.context).wrap_socket(
                        plain, server_hostname=self.host, do_handshake_on_connect=False
                    ) as channel,
                    shut_down_at(channel, ends),
                ):
                    channel.do_handshake()
                    yield channel
            else:
                with shut_down_at(plain, ends):
                    yield plain

    def masked(self, text: str) -> str:
        """Return a string with the credential masked; a server may echo it."""
        value = "" if self.credential is None else self.credential.newest().decode("ascii")
        return text.replace(value, "[credential]") if value else text

    def _authorization(self) -> tuple[str, str]:
        if self.credential is None:
            raise ValueError("no credential")
        value = self.credential.newest().decode("ascii")
        return ("X-API-Key", value) if value.startswith(_KEY_PREFIX) else ("Authorization", f"Bearer {value}")


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a response body; empty if there is none."""
    with suppress(ValueError):
        found = strictjson.loads(body, max_depth=_DEEPEST)
        return found if isinstance(found, dict) else {}
    return {}


def credential_ring(reference: str) -> SecretRing:
    """Return the credential that a reference names.

    :raises ValueError: it is the credential itself, it cannot be read, or it is not valid in a header.
    """
    ring = client_secret_ring(reference)
    if ring.literal:
        raise ValueError("must be a reference such as env:NAME or file:/path, never the credential itself")
    value = ring.newest()
    if not (value.isascii() and value.decode("ascii").isprintable()):
        raise ValueError("contains characters that are not valid in an API key or access token")
    return ring


class TooManyError(OSError):
    """The maximum number of connections of a run was reached."""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def unknown_path() -> str:
    """Return a path that does not exist in the app."""
    return f"/check-{secrets.token_hex(8)}"


def _exchange(
    channel: socket.socket,
    method: str,
    target: str,
    host: str,
    headers: Sequence[tuple[str, str]],
    body: bytes | None,
) -> Reply:
    connection = HTTPConnection(host)
    connection.sock = channel
    connection.putrequest(method, target or "/", skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", host)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    # A server that rejects a body may close the connection early; its response can still be read.
    with suppress(ConnectionError, ssl.SSLError):
        for start in range(0, len(body or b""), _CHUNK):
            channel.sendall((body or b"")[start : start + _CHUNK])
    with connection.getresponse() as response:
        return Reply(response.status, tuple(response.getheaders()), response.read(MOST_BYTES))
