"""Where the client's certificate comes from: the TLS socket of the server, or a header of a trusted proxy.

Nothing here looks into the certificate. Both sources have proven that the client holds its key; whether its chain
leads to an authority is for whoever takes it as an identity to check.
"""

from __future__ import annotations

import base64
import logging
import re
import ssl
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .forwarded import environ_key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log: logging.Logger = logging.getLogger(__name__)

MAX_HEADER = 16_384
"""The longest header with a certificate, in characters."""

_BYTE_SEQUENCE = re.compile(r":([A-Za-z0-9+/]+={0,2}):")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----(?:\r?\n)?")
_PAIR = re.compile(r'[ \t]*([A-Za-z]+)=(?:"([^"\\]*(?:\\.[^"\\]*)*)"[ \t]*|([^",;]*))([,;]|\Z)')


class CertificateSource:
    """Reads the client's certificate for the door.

    A trusted proxy speaks for others, so the certificate of its own connection names nobody: from its address only
    the header counts, and without a configured header there is no certificate.

    :param header: ``Client-Cert``, ``X-SSL-Client-Cert`` or ``X-Forwarded-Client-Cert``; None to believe no header.
    """

    def __init__(self, header: str | None) -> None:
        self.header = header
        self.key: str = "" if header is None else environ_key(header)

    def of_client(self, environ: WSGIEnvironment) -> bytes | None:
        """Return the certificate of a client that is connected to this server, in DER, or None."""
        return socket_certificate(environ.get("gunicorn.socket"))

    def of_proxy(self, value: str | None, proxy: str) -> bytes | None:
        """Return the certificate that a trusted proxy passed on, in DER, or None.

        :param value: the header; a malformed one is no certificate and is logged without its content.
        :param proxy: the address of the proxy, for the log.
        """
        if self.header is None or not value:
            return None
        try:
            return certificate_in(self.header, value)
        except ValueError:
            log.warning("the header %s from the trusted proxy %s holds no certificate", self.header, proxy or "unix")
            return None


def socket_certificate(connection: object) -> bytes | None:
    """Return the certificate that the client showed on a TLS socket, in DER, or None."""
    # Read from the module each time: gevent replaces the class, in a worker after the app was loaded.
    if not isinstance(connection, ssl.SSLSocket):
        return None
    try:
        return connection.getpeercert(binary_form=True)
    except (OSError, ValueError):
        # The client is gone, or the handshake is not complete.
        return None


def certificate_in(header: str, value: str) -> bytes:
    """Return the one certificate in the value of a header, in DER.

    :raises ValueError: the value is not in the header's own format, or too long.
    """
    if len(value) > MAX_HEADER:
        raise ValueError(f"more than {MAX_HEADER} characters")
    return _FORMATS[header](value.strip(" \t"))


def _byte_sequence(value: str) -> bytes:
    """Read ``Client-Cert`` (RFC 9440 section 2.2): one byte sequence (RFC 8941 section 3.3.5), no parameters."""
    found = _BYTE_SEQUENCE.fullmatch(value)
    if found is None:
        raise ValueError("not one byte sequence")
    return base64.b64decode(found[1], validate=True)


def _escaped_pem(value: str) -> bytes:
    """Read one certificate in PEM (RFC 7468) whose special characters are percent-encoded; a plus is a plus."""
    found = _PEM.fullmatch(unquote(value, "ascii", "strict"))
    if found is None:
        raise ValueError("not one certificate in PEM")
    return base64.b64decode("".join(found[1].split()), validate=True)


def _nearest_element(value: str) -> bytes:
    """Read the last element of ``X-Forwarded-Client-Cert``: the proxies before it only told the nearest one.

    The format is that of Envoy: elements with commas between them, ``key=value`` pairs with semicolons between them,
    and a value with any of these in double quotes.
    """
    certificates: list[str] = []
    at, end = 0, ","
    while end:
        pair = _PAIR.match(value, at)
        if pair is None:
            raise ValueError("not a list of elements")
        if pair[1].lower() == "cert":
            certificates.append(pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2]))
        at, end = pair.end(), pair[4]
        if end == ",":
            certificates = []
    if len(certificates) != 1:
        raise ValueError("not one certificate in the last element")
    return _escaped_pem(certificates[0])


_FORMATS: Mapping[str, Callable[[str], bytes]] = {
    "Client-Cert": _byte_sequence,
    "X-SSL-Client-Cert": _escaped_pem,
    "X-Forwarded-Client-Cert": _nearest_element,
}
