"""Headers in which proxies describe their clients. Any client can send them, so they are removed from requests."""

from __future__ import annotations

HOP_HEADERS = frozenset(
    {
        "HTTP_FORWARDED",
        "HTTP_VIA",
        "HTTP_X_REAL_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_CF_CONNECTING_IP",
        "HTTP_X_CLIENT_IP",
        "HTTP_X_CLUSTER_CLIENT_IP",
        "HTTP_CLIENT_IP",
        "HTTP_FASTLY_CLIENT_IP",
        "HTTP_CLIENT_CERT",
        "HTTP_CLIENT_CERT_CHAIN",
        "HTTP_X_CLIENT_CERT",
        "HTTP_X_SSL_CERT",
        "HTTP_X_SSL_CLIENT_CERT",
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
"""Removed from every request; the names are those of the environ."""

HOP_FAMILIES = (
    "HTTP_X_FORWARDED",
    "HTTP_CLIENT_CERT_",
    "HTTP_X_CLIENT_CERT_",
    "HTTP_SSL_CLIENT_",
    "HTTP_X_SSL_CLIENT_",
    "HTTP_X_TLS_CLIENT_",
    "HTTP_X_AMZN_MTLS_",
)
"""Prefixes of further headers that are removed: proxies invent new members of these families."""

PROXY_HEADERS = frozenset(
    {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_REQUEST_ID"}
)
"""Headers that every trusted proxy may send; one with the client's certificate only if it is configured."""


def environ_key(header: str) -> str:
    """Return the name that WSGI gives a header (PEP 3333)."""
    return "HTTP_" + header.upper().replace("-", "_")
