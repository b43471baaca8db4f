"""TLS for gunicorn: Mozilla's intermediate profile, timeouts, and renewed certificates without a restart."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from ..refresh import PerProcess
from .openssl import keep_no_sessions, limit_groups

HANDSHAKE_SECONDS = 10.0
"""Timeout of a handshake under gevent, in seconds."""

log: logging.Logger = logging.getLogger("gunicorn.error")

_KEPT = "_flask_secure_ml_tls"
_Version = tuple[tuple[int, ...] | None, ...]


class TlsError(ValueError):
    """A server cannot use its certificate; the message is for the operator."""


def served_context(config: Any, factory: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return the context of this process; it is cached, because gthread requests it for each connection.

    :param config: the gunicorn configuration, which also caches the context.
    :param factory: gunicorn's factory, which loads the files and sets the cipher suites.
    :raises TlsError: the files cannot be used.
    """

    def create() -> ssl.SSLContext:
        files = [path for path in (config.certfile, config.keyfile, config.ca_certs) if path]
        return Renewed(lambda: make_context(config, factory), files).context

    kept: PerProcess[ssl.SSLContext] = vars(config).setdefault(_KEPT, PerProcess(create))
    return kept.get()


def make_context(config: Any, factory: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return a context with the current files.

    :raises TlsError: the files cannot be used.
    """
    try:
        _check_files(config.certfile, config.keyfile or config.certfile)
        context = factory()
    except (OSError, ValueError) as error:
        raise TlsError(f"{_names(config, error)} cannot be used: {_reason(config, error)}") from None
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    # Since Python 3.13, the default would reject clients whose authority has no key usage, as "openssl req" makes it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # The ticket key lives as long as the process, and can decrypt recorded sessions.
    keep_no_sessions(context)
    if "h2" not in config.http_protocols:
        context.set_alpn_protocols(["http/1.1"])
    limit_groups(context)
    context.sslsocket_class = bounded_sockets(context.sslsocket_class, float(config.timeout) or None)
    return context


def _check_files(certificate: str, key: str) -> None:
    # OpenSSL does not report which of the files it cannot open.
    for path in (certificate, key):
        with open(path, "rb") as stream:  # noqa: PTH123 - the same as OpenSSL opens
            content = stream.read()
    if b"ENCRYPTED" in content:
        # OpenSSL would prompt for the pass phrase on the terminal and block the worker.
        raise ValueError("the private key is encrypted; store it without a pass phrase, with permissions 0600")


def _names(config: Any, error: Exception) -> str:
    """Return the file that cannot be opened, or all of them."""
    if isinstance(error, OSError) and isinstance(error.filename, str):
        return error.filename
    return " and ".join(path for path in (config.certfile, config.keyfile) if path)


def _reason(config: Any, error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the private key does not match the certificate"
        hint = "" if config.keyfile else "; set SECURE_ML_SERVE_PRIVATE_KEY if the key is in another file"
        return f"no PEM certificate and private key{hint}"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


class Renewed:
    """A context whose handshakes use the current certificate files.

    A handshake costs one ``stat`` per file. Changed files that cannot be used, such as a partially written one, are
    logged once, and the previous certificate stays in use.

    :param make: returns a context with the files, or raises :class:`TlsError`.
    :raises TlsError: the files cannot be used.
    """

    def __init__(self, make: Callable[[], ssl.SSLContext], files: Sequence[str]) -> None:
        self._make = make
        self._files = files
        self._version = self._look()
        self.context: ssl.SSLContext = make()
        self._current = self.context
        self.context.sni_callback = self._choose

    def current(self) -> ssl.SSLContext:
        """Return the context with the newest usable files."""
        version = self._look()
        if version != self._version:
            # Set first, so that unusable files are tried only once.
            self._version = version
            try:
                self._current = self._make()
            except TlsError as error:
                log.error("%s; the previous certificate stays in use", error)
            else:
                log.info("The renewed certificate in %s is in use", self._files[0])
        return self._current

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL calls this for every handshake, also without a name.
        connection.context = self.current()

    def _look(self) -> _Version:
        return tuple(_seen(path) for path in self._files)


def _seen(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - for each handshake, and half as long
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def bounded_sockets(base: type[ssl.SSLSocket], seconds: float | None) -> type[ssl.SSLSocket]:
    """Return a TLS socket class with a timeout for each operation, for which gunicorn would wait forever.

    :param base: the class of the standard library or of gevent.
    :param seconds: the timeout; None to wait forever.
    """

    class BoundedSocket(base):  # type: ignore[valid-type, misc]
        """A socket whose operations raise TimeoutError."""

        def settimeout(self, value: float | None) -> None:
            # A gthread worker also does this to closed sockets. If it raised, the worker would count the connection as
            # ended twice, and not wait for another one at shutdown.
            if self.fileno() >= 0:
                super().settimeout(seconds if value is None else value)

        def setblocking(self, flag: bool) -> None:
            self.settimeout(None if flag else 0.0)

        def do_handshake(self, *args: Any) -> None:
            if not base.__module__.startswith("gevent."):
                super().do_handshake(*args)
                return
            from gevent import Timeout

            with Timeout(HANDSHAKE_SECONDS, TimeoutError("the TLS handshake takes too long")):
                super().do_handshake(*args)

    return BoundedSocket
