"""Running gunicorn as a child process: start on a free port, poll until it responds, stop gracefully."""

from __future__ import annotations

import errno
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

CONFIG = Path(__file__).with_name("gunicorn.conf.py")
HIGHEST_PORT = 65535
USUAL_PORT = 8443
READY_WITHIN = 30.0
STOPPED_WITHIN = 15.0


class ServerError(Exception):
    """The server cannot run. The message has the reason and a remedy."""


@dataclass(frozen=True)
class Address:
    """The host and port on which a server listens.

    :param command: the command that starts it, for error messages.
    :param variable: the variable for the port in this command.
    """

    host: str
    port: int
    command: str = "make demo"
    variable: str = "PORT"

    @classmethod
    def parse(
        cls, host: str, port: str, command: str = "make demo", variable: str = "PORT", usual: int = USUAL_PORT
    ) -> Self:
        """Return the address for host and port as strings; empty strings mean 127.0.0.1 and the default port.

        :raises ServerError: the port is not a number from 1 to 65535.
        """
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= HIGHEST_PORT):
            raise ServerError(f"{variable} must be a number from 1 to {HIGHEST_PORT}, not {port!r}")
        return cls(host or "127.0.0.1", int(port or usual), command, variable)

    @property
    def reachable(self) -> str:
        """The host to which a client on this machine connects."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound

    @property
    def url(self) -> str:
        """The base URL for clients on this machine."""
        return f"https://{_bracketed(self.reachable)}:{self.port}"

    def check_free(self) -> None:
        """Check that the port is free, by binding it briefly.

        :raises ServerError: the port is in use or reserved, or the host is not on this machine.
        """
        try:
            family, kind, *_, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except OSError as error:
            raise ServerError(self._explain(error)) from None

    def _explain(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            other = self.port + 1 if self.port < HIGHEST_PORT else self.port - 1
            return f"port {self.port} is in use; choose another: {self.command} {self.variable}={other}"
        if error.errno == errno.EACCES:
            return f"port {self.port} requires privileges; choose one above 1023: {self.command} {self.variable}=8443"
        local = f"for this machine only: {self.command} HOST=127.0.0.1"
        return f"cannot listen on HOST {self.host!r}: {error.strerror}; {local}"


class Server:
    """A context manager that runs gunicorn with one app of the example.

    :param app: the app, in gunicorn's notation.
    """

    def __init__(self, address: Address, environ: Mapping[str, str], app: str = "example_app.wsgi:app") -> None:
        self._address = address
        self._environ = {**environ, "HOST": address.host, "PORT": str(address.port)}
        self._app = app

    def __enter__(self) -> Self:
        """Start gunicorn."""
        # In its own process group, so that Ctrl-C reaches only the demo, which then stops gunicorn gracefully.
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, constant arguments
            [sys.executable, "-m", "gunicorn", "--config", str(CONFIG), self._app],
            cwd=CONFIG.parents[1],
            env=self._environ,
            process_group=0,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop gunicorn after the responses to current requests."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._process.terminate()
        try:
            self._process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_until_ready(self, authority: Path) -> None:
        """Request ``/healthz`` over TLS until it responds.

        :param authority: the certificate of the authority that signed the server's.
        :raises ServerError: gunicorn ended, or did not respond within 30 seconds.
        """
        context = ssl.create_default_context(cafile=str(authority))
        deadline = time.monotonic() + READY_WITHIN
        while not self._is_healthy(context):
            if self._process.poll() is not None:
                self._raise_ended()
            if time.monotonic() > deadline:
                raise ServerError(f"gunicorn did not respond on {self._address.url} within {READY_WITHIN:.0f} seconds")
            time.sleep(0.1)

    def wait(self, seconds: float | None = None) -> None:
        """Wait while gunicorn runs.

        :param seconds: the maximum time to wait; None for no limit.
        :raises ServerError: gunicorn has ended, which is unexpected.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        self._raise_ended()

    def _raise_ended(self) -> NoReturn:
        status = self._process.returncode
        raise ServerError(f"gunicorn ended with status {status} on {self._address.url}; see its output above")

    def _is_healthy(self, context: ssl.SSLContext) -> bool:
        connection = HTTPSConnection(self._address.reachable, self._address.port, timeout=5, context=context)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200  # noqa: PLR2004 - OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ip_address(host).version == 6 else host  # noqa: PLR2004 - IPv6
    except ValueError:
        return host
