"""Faults of a proxy, and the findings of the online checks for each."""

from __future__ import annotations

import ssl

import pytest

from wrong_proxy import Faults

MAX_BODY = 100_000
"""The maximum size of a body of the app behind the proxy."""


def every_version(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")


def old_suites(context: ssl.SSLContext) -> None:
    context.set_ciphers("ECDHE+AESGCM:ECDHE+AES:@SECLEVEL=0")


def old_only(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


FAULTS = [
    pytest.param(Faults(tls=every_version), {"SML902", "SML903"}, id="old TLS"),
    pytest.param(Faults(tls=old_suites), {"SML903"}, id="weak suites"),
    pytest.param(Faults(tls=old_only), {"SML904"}, id="no TLS 1.3"),
    pytest.param(Faults(removes=frozenset({"strict-transport-security"})), {"SML911"}, id="no HSTS"),
    pytest.param(
        Faults(removes=frozenset({"strict-transport-security"}), adds=[("Strict-Transport-Security", "max-age=60")]),
        {"SML911"},
        id="short HSTS",
    ),
    pytest.param(Faults(removes=frozenset({"x-content-type-options"})), {"SML912"}, id="no nosniff"),
    pytest.param(Faults(removes=frozenset({"referrer-policy"})), {"SML912"}, id="no referrer policy"),
    pytest.param(
        Faults(
            removes=frozenset({"content-security-policy"}),
            adds=[("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'")],
        ),
        {"SML912"},
        id="weak policy",
    ),
    pytest.param(Faults(removes=frozenset({"content-security-policy", "x-frame-options"})), {"SML912"}, id="no policy"),
    pytest.param(Faults(adds=[("X-Content-Type-Options", "nosniff")]), {"SML913"}, id="twice"),
    pytest.param(Faults(adds=[("X-Powered-By", "proxy")]), {"SML914"}, id="version"),
    pytest.param(Faults(keeps=frozenset({"x-forwarded-proto"})), {"SML921"}, id="scheme"),
    pytest.param(Faults(scheme="http"), {"SML911", "SML927", "SML944", "SML946"}, id="clear text, it says"),
    pytest.param(Faults(keeps=frozenset({"x-forwarded-for"})), {"SML922"}, id="address"),
    pytest.param(Faults(address_from="X-Real-IP"), {"SML922"}, id="address of another header"),
    pytest.param(Faults(repeats_host=True), {"SML923"}, id="host in a response"),
    pytest.param(Faults(any_host=True), {"SML924"}, id="any host"),
    pytest.param(Faults(keeps=frozenset({"x-request-id"})), {"SML925"}, id="request id"),
    pytest.param(Faults(replaces=frozenset({401})), {"SML931"}, id="own 401"),
    pytest.param(Faults(removes=frozenset({"www-authenticate"})), {"SML931"}, id="no challenge"),
    pytest.param(Faults(replaces=frozenset({404})), {"SML933"}, id="own 404"),
    pytest.param(Faults(replaces=frozenset({405})), {"SML934"}, id="own 405"),
    pytest.param(Faults(largest_body=MAX_BODY // 2), {"SML935"}, id="smaller bodies"),
    pytest.param(Faults(largest_body=MAX_BODY), {"SML935"}, id="own 413"),
    pytest.param(Faults(replaces=frozenset({429})), {"SML936"}, id="own 429"),
    pytest.param(Faults(methods=frozenset({"POST"})), {"SML937", "SML935"}, id="no POST"),
    pytest.param(Faults(longest_header=4096), {"SML938"}, id="short headers"),
    pytest.param(Faults(echoes=True), {"SML939"}, id="TRACE"),
    pytest.param(Faults(itself=frozenset({"/v1/model"})), {"SML941", "SML942"}, id="a path of its own"),
    pytest.param(Faults(itself=frozenset({"/v1/predict"})), {"SML935", "SML941"}, id="a path with POST of its own"),
    pytest.param(Faults(itself=frozenset({"/v1/models/0/weights"})), {"SML941"}, id="a path with variables of its own"),
    pytest.param(Faults(caches=True), {"SML941"}, id="a cache for everyone"),
    pytest.param(Faults(adds=[("Age", "7")]), {"SML942"}, id="a cache"),
    pytest.param(Faults(removes=frozenset({"cache-control"})), {"SML942"}, id="no Cache-Control"),
    pytest.param(Faults(itself=frozenset({"/healthz"})), {"SML943"}, id="a public path of its own"),
    pytest.param(Faults(itself=frozenset({"/openapi.json"})), {"SML943", "SML944"}, id="another description"),
]
