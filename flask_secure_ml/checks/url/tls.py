"""Checks of TLS against Mozilla's intermediate profile: versions, cipher suites, certificate, clear text."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_der_x509_certificate

from ..finding import Check, Found, Severity
from .client import unknown_path
from .site import Site

WEAK_CIPHERS = "ALL:!aNULL:!eNULL:!AESGCM:!CHACHA20:!AESCCM:!ARIAGCM:@SECLEVEL=0"
"""All TLS 1.2 suites without authenticated encryption, by OpenSSL name; the profile excludes them."""

STATIC_CIPHERS = "kRSA:!aNULL:!eNULL:@SECLEVEL=0"
"""All TLS 1.2 suites without forward secrecy."""

SHORTEST_RSA = 2048
SOON = 14
_REDIRECTS = range(300, 400)


def unreachable(site: Site) -> Iterator[Found]:
    """Yield a finding if the service does not respond."""
    if site.stranger.fault:
        yield Found(site.where, f"{site.client.url} does not respond: {site.stranger.fault}")


def old_versions(site: Site) -> Iterator[Found]:
    """Yield the accepted versions before TLS 1.2."""
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        context = _context(site, "ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        if _accepts(site, context):
            yield Found(site.where, f"{version.name} is accepted")


def weak_ciphers(site: Site) -> Iterator[Found]:
    """Yield the kinds of accepted TLS 1.2 suites that the profile excludes."""
    for ciphers, kind in ((WEAK_CIPHERS, "authenticated encryption"), (STATIC_CIPHERS, "forward secrecy")):
        context = _context(site, ciphers)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        if _accepts(site, context):
            yield Found(site.where, f"cipher suites without {kind} are accepted")


def no_tls_1_3(site: Site) -> Iterator[Found]:
    """Yield a finding if TLS 1.3 is not offered."""
    context = ssl.create_default_context(cafile=site.client.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if site.client.secure and site.stranger.status and not _accepts(site, context):
        yield Found(site.where, "TLS 1.3 is not accepted")


def certificate(site: Site) -> Iterator[Found]:
    """Yield a certificate that expires soon or has a short key."""
    if not (site.client.secure and site.stranger.status):
        return
    with suppress(OSError), site.client.connect() as channel:
        raw = channel.getpeercert(binary_form=True) if isinstance(channel, ssl.SSLSocket) else None
        if not raw:
            return
        found = load_der_x509_certificate(raw)
        days = (found.not_valid_after_utc - datetime.now(UTC)).days
        if days < SOON:
            yield Found(site.where, f"the certificate expires in {days} days")
        key = found.public_key()
        if isinstance(key, RSAPublicKey) and key.key_size < SHORTEST_RSA:
            yield Found(site.where, f"the certificate has an RSA key of {key.key_size} bits")


def clear_text(site: Site) -> Iterator[Found]:
    """Yield a finding if the host serves clear text other than an error or a redirect to TLS."""
    if not site.clear_text_port:
        return
    reply = site.client.send("GET", unknown_path(), clear_text_port=site.clear_text_port)
    to_tls = reply.status in _REDIRECTS and reply.header("Location").startswith("https:")
    rejected = reply.status >= HTTPStatus.BAD_REQUEST and (
        reply.is_ours("tls_required") or not reply.header("X-Error-Code")
    )
    if reply.status and not to_tls and not rejected:
        what = f"port {site.clear_text_port} responds in clear text: {reply.shown()}"
        yield Found(site.where, what)


def _context(site: Site, ciphers: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=site.client.ca_file)
    # Offer exactly the suites and versions under test, not the defaults of this client.
    with suppress(ssl.SSLError):
        context.set_ciphers(ciphers)
    return context


def _accepts(site: Site, context: ssl.SSLContext) -> bool:
    if not (site.client.secure and site.stranger.status):
        return False
    with suppress(OSError, ValueError), site.client.connect(context=context):
        return True
    return False


CHECKS = (
    Check(
        "SML901",
        Severity.ERROR,
        "The service does not respond",
        "No client can call it, and nothing else could be checked.",
        "the address, port and certificate of the proxy or server; --ca-file for your own certificate authority",
        unreachable,
    ),
    Check(
        "SML902",
        Severity.WARNING,
        "Old versions of TLS are accepted",
        "They have known weaknesses; Mozilla's intermediate profile starts with TLS 1.2 (RFC 8996).",
        "nginx: ssl_protocols TLSv1.2 TLSv1.3; HAProxy: ssl-min-ver TLSv1.2; gunicorn: ssl_context",
        old_versions,
    ),
    Check(
        "SML903",
        Severity.WARNING,
        "Weak cipher suites are accepted",
        "Traffic can be modified, or recorded and decrypted later; Mozilla's intermediate profile excludes them.",
        "nginx: ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20; HAProxy: ssl-default-bind-ciphers; gunicorn: ciphers",
        weak_ciphers,
    ),
    Check(
        "SML904",
        Severity.NOTE,
        "TLS 1.3 is not offered",
        "Mozilla's intermediate profile includes it; it is faster and encrypts the certificate.",
        "nginx: ssl_protocols TLSv1.2 TLSv1.3",
        no_tls_1_3,
    ),
    Check(
        "SML905",
        Severity.WARNING,
        "The certificate is weak or expires soon",
        "Clients stop connecting when it expires, or do not trust a short key.",
        "certbot renew, and reload the proxy or server",
        certificate,
    ),
    Check(
        "SML906",
        Severity.ERROR,
        "The service responds in clear text",
        "A credential sent in clear text is exposed. Close the port, redirect to TLS, or let the app reject requests.",
        "nginx: return 301 https://$host$request_uri for listen 80; and proxy_set_header X-Forwarded-Proto $scheme",
        clear_text,
    ),
)
