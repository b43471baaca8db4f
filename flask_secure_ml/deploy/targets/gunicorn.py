"""gunicorn: a configuration with the recommended settings, sockets, certificates and timeouts."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from ..facts import Facts
from ..target import Target
from ..web import SERVER_IDLE_SECONDS

_CERT_REQS = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def make(facts: Facts) -> Mapping[str, str]:
    """Return the configuration.

    Without trusted proxies, gunicorn serves clients directly, with the certificate of the service. Behind a proxy, it
    has an optional separate certificate, and the proxy verifies client certificates.
    """
    options = facts.options
    alone = not facts.behind_proxy
    found = values(
        facts,
        bind=options.bind or options.upstreams[0],
        certificate=options.certificate if alone else options.upstream_certificate,
        key=options.certificate_key if alone else options.upstream_key,
        client_ca=options.client_ca if alone else None,
    )
    return {"gunicorn.conf.py": TARGET.render("gunicorn.conf.py", facts, **found)}


def values(
    facts: Facts, *, bind: str, certificate: str | None, key: str | None, client_ca: str | None
) -> dict[str, Any]:
    """Return the template values, for this target and others that run gunicorn.

    :param client_ca: the certificate authorities of clients, if gunicorn verifies client certificates.
    """
    asked = facts.options.client_certificates
    client_ca = client_ca if asked != "off" else None
    cert_reqs = int(_CERT_REQS[asked])
    tls = {"certificate": certificate, "key": key, "client_ca": client_ca, "cert_reqs": cert_reqs}
    return {"bind": bind, "keepalive": SERVER_IDLE_SECONDS, **tls}


TARGET = Target(
    name="gunicorn",
    summary="a gunicorn configuration with TLS, limits, timeouts and hooks",
    overlay="overlay.py",
    make=make,
    advice=(
        "gunicorn: check with  gunicorn --check-config -c {folder}/gunicorn.conf.py '{options.app}'",
        "gunicorn: serve with  gunicorn -c {folder}/gunicorn.conf.py '{options.app}'",
    ),
)
