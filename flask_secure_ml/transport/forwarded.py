"""The headers in which proxies describe their clients. Any client can send them, so they are removed from requests.

The certificate of the client comes from the TLS socket of the server or from a header of a trusted proxy. It is not
parsed here. Both sources have verified that the client has its private key. Code that uses the certificate as an
identity must verify its chain.
"""

from __future__ import annotations

import base64
import logging
import re
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import unquote

log: logging.Logger = logging.getLogger(__name__)

_HOP_HEADERS = frozenset(
    {
        "HTTP_FORWARDED",
        "HTTP_VIA",
        "HTTP_X_REAL_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_CF_CONNECTING_IP",
        "HTTP_CF_CONNECTING_IPV6",
        "HTTP_CF_PSEUDO_IPV4",
        "HTTP_CF_VISITOR",
        "HTTP_X_CLIENT_IP",
        "HTTP_X_CLUSTER_CLIENT_IP",
        "HTTP_CLIENT_IP",
        "HTTP_FASTLY_CLIENT_IP",
        "HTTP_CLIENT_CERT_CHAIN",
        "HTTP_X_CLIENT_CERT",
        "HTTP_X_SSL_CERT",
        "HTTP_X_SSL_CLIENT_VERIFY",
        "HTTP_X_SSL_CLIENT_S_DN",
        "HTTP_SSL_CLIENT_CERT",
        "HTTP_SSL_CLIENT_VERIFY",
        "HTTP_X_ARR_CLIENTCERT",
        "HTTP_X_AMZN_MTLS_CLIENTCERT",
        "HTTP_X_HTTP_METHOD_OVERRIDE",
        "HTTP_X_HTTP_METHOD",
        "HTTP_X_METHOD_OVERRIDE",
        "HTTP_X_ORIGINAL_URL",
        "HTTP_X_ORIGINAL_FORWARDED_FOR",
        "HTTP_X_ORIGINAL_HOST",
        "HTTP_X_REWRITE_URL",
        "HTTP_X_HOST",
        "HTTP_X_URL_SCHEME",
        "HTTP_X_SCHEME",
        "HTTP_FRONT_END_HTTPS",
        "HTTP_REMOTE_USER",
        "HTTP_X_REMOTE_USER",
        "HTTP_PROXY",
    }
)
HOP_FAMILIES = (
    "HTTP_X_FORWARDED",
    "HTTP_CLIENT_CERT_",
    "HTTP_X_CLIENT_CERT_",
    "HTTP_SSL_CLIENT_",
    "HTTP_X_SSL_CLIENT_",
    "HTTP_X_TLS_CLIENT_",
    "HTTP_X_AMZN_MTLS_",
)
"""Prefixes of other headers that are removed, because proxies add new members to these families."""

PROXY_HEADERS = frozenset(
    {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_REQUEST_ID"}
)
"""The headers that every trusted proxy may send; a header with the client's certificate must be configured."""


def environ_key(header: str) -> str:
    """Return the key of a header in the WSGI environ (PEP 3333)."""
    return "HTTP_" + header.upper().replace("-", "_")


MAX_HEADER = 16_384
"""The maximum length of a header with a certificate, in characters."""

_BYTE_SEQUENCE = re.compile(r":([A-Za-z0-9+/]+={0,2}):")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END CERTIFICATE-----(?:\r?\n)?")
_PAIR = re.compile(r'[ \t]*([A-Za-z]+)=(?:"([^"\\]*(?:\\.[^"\\]*)*)"[ \t]*|([^",;]*))([,;]|\Z)')


class CertificateSource:
    """Reads the client's certificate for the proxy middleware.

    On a connection from a trusted proxy, the certificate of the connection is the proxy's own, so only the header is
    used; without a configured header there is no certificate.

    :param header: one of :data:`CERTIFICATE_FORMATS`; None to trust no header.
    """

    def __init__(self, header: str | None) -> None:
        self.header = header
        self.key: str = "" if header is None else environ_key(header)

    def of_proxy(self, value: str | None, proxy: str) -> bytes | None:
        """Return the certificate that a trusted proxy forwarded, in DER, or None.

        :param value: the header. If it is malformed, the result is None, and a warning without the value is logged.
        :param proxy: the IP address of the proxy, for the log.
        """
        if self.header is None or not value:
            return None
        try:
            return certificate_in(self.header, value)
        except ValueError:
            log.warning("the header %s of the trusted proxy %s has no certificate", self.header, proxy or "unix")
            return None


def socket_certificate(connection: object) -> bytes | None:
    """Return the client certificate of a TLS socket, in DER, or None."""
    # Looked up each time, because gevent replaces the class, possibly after the app was loaded.
    if not isinstance(connection, ssl.SSLSocket):
        return None
    try:
        return connection.getpeercert(binary_form=True)
    except (OSError, ValueError):
        # The client has disconnected, or the handshake is not complete.
        return None


def certificate_in(header: str, value: str) -> bytes:
    """Return the certificate in the value of a header, in DER.

    :raises ValueError: the value does not have the format of the header, or is too long.
    """
    if len(value) > MAX_HEADER:
        raise ValueError(f"more than {MAX_HEADER} characters")
    return CERTIFICATE_FORMATS[header](value.strip(" \t"))


def _byte_sequence(value: str) -> bytes:
    """Parse ``Client-Cert`` (RFC 9440 section 2.2): one byte sequence (RFC 8941 section 3.3.5), no parameters."""
    found = _BYTE_SEQUENCE.fullmatch(value)
    if found is None:
        raise ValueError("not one byte sequence")
    return base64.b64decode(found[1], validate=True)


def _escaped_pem(value: str) -> bytes:
    """Parse one percent-encoded certificate in PEM (RFC 7468); a plus sign is not decoded to a space."""
    found = _PEM.fullmatch(unquote(value, "ascii", "strict"))
    if found is None:
        raise ValueError("not one certificate in PEM")
    return base64.b64decode("".join(found[1].split()), validate=True)


def _nearest_element(value: str) -> bytes:
    """Parse the last element of ``X-Forwarded-Client-Cert``, which the nearest proxy has added.

    The format is that of Envoy: elements are separated by commas, ``key=value`` pairs by semicolons, and a value with
    one of these characters is in double quotes.
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


CERTIFICATE_FORMATS: Mapping[str, Callable[[str], bytes]] = {
    "Client-Cert": _byte_sequence,
    "X-SSL-Client-Cert": _escaped_pem,
    "X-Forwarded-Client-Cert": _nearest_element,
    "X-Amzn-Mtls-Clientcert-Leaf": _escaped_pem,
}
"""The parsers of the headers that may have the client's certificate."""

HOP_HEADERS = _HOP_HEADERS | frozenset(map(environ_key, CERTIFICATE_FORMATS))
"""The headers that are removed from every request, as keys of the environ."""
