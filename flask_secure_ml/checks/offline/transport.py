"""Checks of TLS, proxies, client certificates and middleware."""

from __future__ import annotations

from collections.abc import Iterator

from ...fetch import is_public
from ...transport.beneath import around, layer_name
from ...transport.gate import opaque_layers
from ..finding import Check, Found, Severity, Where, key, setting
from ..setup import Setup

HALF_A_YEAR = 15_768_000
"""Minimum ``max-age`` that the MDN HTTP Observatory accepts as HSTS, in seconds."""

# The broadest networks that CDNs publish have these prefixes.
_NARROWEST = {(4, True): 12, (6, True): 29, (4, False): 16, (6, False): 48}


def clear_text(setup: Setup) -> Iterator[Found]:
    """Yield a finding if requests without TLS are accepted."""
    if not setup.settings.require_tls:
        yield Found(setting("require_tls"), "SECURE_ML_REQUIRE_TLS is off")


def debug(setup: Setup) -> Iterator[Found]:
    """Yield a finding if the app is in debug mode."""
    if setup.app.debug:
        yield Found(key("DEBUG"), "debug is on")


def testing(setup: Setup) -> Iterator[Found]:
    """Yield a finding if the app is in testing mode."""
    if setup.app.testing:
        yield Found(key("TESTING"), "TESTING is on")


def session_cookie(setup: Setup) -> Iterator[Found]:
    """Yield a finding if browsers send the session cookie without TLS."""
    if not setup.app.config["SESSION_COOKIE_SECURE"]:
        yield Found(key("SESSION_COOKIE_SECURE"), "SESSION_COOKIE_SECURE is off")


def broad_proxies(setup: Setup) -> Iterator[Found]:
    """Yield the trusted networks that are too broad."""
    for network in setup.settings.trusted_proxies.networks:
        if network.prefixlen < _NARROWEST[network.version, is_public(network.network_address)]:
            yield Found(setting("trusted_proxies"), f"all IP addresses of {network} are trusted")


def unreachable_header(setup: Setup) -> Iterator[Found]:
    """Yield a certificate header if no proxy is trusted to send it."""
    header, trusted = setup.settings.client_certificate_header, setup.settings.trusted_proxies
    if header and not (trusted.networks or trusted.unix):
        yield Found(setting("client_certificate_header"), f"{header} is configured, but no proxy is trusted to send it")


def no_certificate_header(setup: Setup) -> Iterator[Found]:
    """Yield a finding if a proxy does not forward the certificates of clients."""
    settings = setup.settings
    behind = settings.trusted_proxies.networks or settings.trusted_proxies.unix
    if settings.mtls_clients and behind and not settings.client_certificate_header:
        yield Found(
            setting("mtls_clients"), "a trusted proxy is configured, but no header for the client's certificate"
        )


def short_hsts(setup: Setup) -> Iterator[Found]:
    """Yield an HSTS policy with a short ``max-age``."""
    if setup.settings.require_tls and setup.settings.hsts_max_age < HALF_A_YEAR:
        yield Found(setting("hsts_max_age"), f"browsers enforce HTTPS for only {setup.settings.hsts_max_age} seconds")


def outer_layers(setup: Setup) -> Iterator[Found]:
    """Yield middleware outside the guards."""
    for layer in around(setup.app):
        yield Found(
            setting("outer_middleware"), f"{layer_name(layer)} is outside the guards (SECURE_ML_OUTER_MIDDLEWARE)"
        )


def opaque(setup: Setup) -> Iterator[Found]:
    """Yield middleware with unknown paths."""
    for sentence in opaque_layers(setup.state.beneath, setup.settings.mounts):
        yield Found(Where("app", setup.app.name), sentence)


CHECKS = (
    Check(
        "SML101",
        Severity.WARNING,
        "Requests without TLS are accepted",
        "Credentials and inputs are sent over the network in clear text.",
        "SECURE_ML_REQUIRE_TLS = True",
        clear_text,
    ),
    Check(
        "SML102",
        Severity.ERROR,
        "Debug mode is on",
        "Anyone who reaches the interactive debugger can run code, and literal secrets are accepted.",
        "start the server without --debug, and unset FLASK_DEBUG",
        debug,
    ),
    Check(
        "SML103",
        Severity.WARNING,
        "Testing mode is on",
        "Literal secrets are accepted, and exceptions of views are not handled.",
        "TESTING = False",
        testing,
    ),
    Check(
        "SML104",
        Severity.WARNING,
        "The session cookie is sent in clear text",
        "An attacker on the network can steal the session.",
        "SESSION_COOKIE_SECURE = True",
        session_cookie,
    ),
    Check(
        "SML105",
        Severity.WARNING,
        "A broad network is trusted",
        "Every machine in the network can forge the IP address, the scheme and the host of a request.",
        'SECURE_ML_TRUSTED_PROXIES = ["10.0.3.0/24"]',
        broad_proxies,
    ),
    Check(
        "SML106",
        Severity.WARNING,
        "No proxy is trusted to send the certificate header",
        "The app removes the header, so clients behind a proxy cannot authenticate with a certificate.",
        'SECURE_ML_TRUSTED_PROXIES = ["10.0.3.0/24"]',
        unreachable_header,
    ),
    Check(
        "SML107",
        Severity.WARNING,
        "Client certificates do not reach the app",
        "Clients behind the proxy get 401, because the app only sees the certificate of the proxy.",
        'SECURE_ML_CLIENT_CERTIFICATE_HEADER = "Client-Cert"',
        no_certificate_header,
    ),
    Check(
        "SML108",
        Severity.NOTE,
        "HSTS is short",
        "A browser that has not visited recently may follow a link without TLS.",
        "SECURE_ML_HSTS_MAX_AGE = 31536000",
        short_hsts,
    ),
    Check(
        "SML109",
        Severity.WARNING,
        "Middleware runs outside the guards",
        "Its own responses are not protected.",
        "wrap app.wsgi_app before init_app, and remove it from SECURE_ML_OUTER_MIDDLEWARE",
        outer_layers,
    ),
    Check(
        "SML110",
        Severity.WARNING,
        "Middleware with unknown paths",
        "Its paths get the policy that is configured for the path, or the default policy.",
        'SECURE_ML_MOUNTS = ["/metrics"]',
        opaque,
    ),
)
