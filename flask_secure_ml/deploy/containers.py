"""Conventions of all container targets: user, port and paths."""

from __future__ import annotations

from typing import NamedTuple

from .facts import Facts

PORT = 8443
"""Port of gunicorn in the container, always with TLS."""

UID = 10001
"""User and group id of the process, which other users of a machine do not usually have."""

TLS_FOLDER = "/run/tls"
"""Mount path of ``tls.crt`` and ``tls.key``."""

CLIENT_CA = "/run/clients/ca.crt"
"""Mount path of the client CA certificates, if gunicorn verifies client certificates itself."""

SERVER_FOLDER = "/opt/server"
"""Directory of the gunicorn configuration and the probe in the image."""


def client_ca(facts: Facts) -> str | None:
    """Return the path of gunicorn's client CA file; None behind a proxy, which verifies client certificates."""
    asked = facts.options.client_certificates != "off" and not facts.behind_proxy
    return CLIENT_CA if asked else None


class Scrape(NamedTuple):
    """The metrics of one container, for Prometheus.

    :param kind: the authentication scheme of the credential.
    :param own_port: they have a port of their own, in clear text.
    """

    scheme: str
    path: str
    port: int
    kind: str
    own_port: bool


def scrape_of(facts: Facts) -> Scrape | None:
    """Return the metrics that other machines can scrape; the route if there is one, because it uses TLS."""
    listen = facts.settings.metrics_listen
    if facts.settings.metrics is not None:
        return Scrape("https", facts.settings.metrics, PORT, "ApiKey", own_port=False)
    if listen is None or listen.is_local:
        return None
    return Scrape("http", "/metrics", listen.port, "Bearer", own_port=True)


VALKEY_ACL = (
    "~flask-secure-ml:* resetchannels -@all +set +hget +hmget +hset +hdel +zadd +zrem +zrangebylex +zrangebyscore +xadd"
    " +xrange +xrevrange +eval +evalsha +time +pttl +pexpire +del +scan"
)
"""Valkey ACL rules of the app's user, for state and limits; docs: howto/shared_state."""
