"""AWS API Gateway: a REST API, and an HTTP API that verifies tokens if the app only accepts one issuer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...config.issuers import IssuerConfig
from ...errors import DependencyUnavailable, MalformedRequest, PayloadTooLarge, RateLimited, SecureMLError
from .. import web
from ..facts import Facts, RouteFacts
from ..target import Target

LONGEST_SECONDS = 29
LARGEST_BYTES = 10_485_760
"""Fixed limits of the gateway: the integration timeout and the body size (10 MB)."""

_PLAIN = re.compile(r"[A-Za-z0-9/._~-]+")

_LEAST_RATE = 1_000
"""Requests per second of all callers together; the app enforces limits per caller."""

_FLOOD_SECONDS = 300

_PREFLIGHTS = ("OPTIONS /", "OPTIONS /{proxy+}")
# The HTTP API rejects mappings of these headers, and sets or removes them itself.
_RESERVED = ("Forwarded", "X-Amzn-")

# The gateway appends the address of the client to X-Forwarded-For.
FORGED = (
    "Client-Cert",
    "Forwarded",
    "X-Amzn-Mtls-Clientcert-Leaf",
    "X-Forwarded-Client-Cert",
    "X-Real-IP",
    "X-SSL-Client-Cert",
)


class GatewayResponse(NamedTuple):
    """An error response of the gateway."""

    type: str
    status: int | None
    code: str
    retry: int | None
    body: str


def make(facts: Facts) -> Mapping[str, str]:
    """Return the CloudFormation templates."""
    rate = max(_LEAST_RATE, web.address_rate(facts))
    common: dict[str, Any] = {
        "timeout": 1000 * min(facts.options.request_timeout, LONGEST_SECONDS),
        "rate": rate,
        "burst": 2 * rate,
    }
    values = {
        **common,
        "forged": FORGED,
        "responses": [(f"Response{number}", each) for number, each in enumerate(_responses(facts), 1)],
        "cors_headers": web.cors_headers(facts),
        "mtls": facts.options.client_certificates == "required",
        "flood": _FLOOD_SECONDS * web.address_rate(facts),
    }
    # CloudFormation never changes a deployment, so a template with other contents needs another one.
    contents = TARGET.render("rest-api.yaml", facts, deployment="", **values)
    deployment = f"Deployment{hashlib.sha256(contents.encode()).hexdigest()[:12]}"
    files = {"rest-api.yaml": TARGET.render("rest-api.yaml", facts, deployment=deployment, **values)}
    issuer = only_issuer(facts)
    if issuer is not None:
        # The app responds to preflights, which have no token.
        public = sorted({*_route_keys(facts), *(_PREFLIGHTS if facts.settings.cors else ())})
        forged = [name for name in FORGED if not name.startswith(_RESERVED)]
        files["http-api.yaml"] = TARGET.render(
            "http-api.yaml", facts, issuer=issuer, public=public, forged=forged, **common
        )
    return files


def only_issuer(facts: Facts) -> IssuerConfig | None:
    """Return the issuer whose tokens are the only credential of the app, or None.

    The gateway rejects other credentials, so its authorizer cannot be used with a second issuer, API keys, sessions or
    certificates. It discovers the keys by the issuer's metadata.
    """
    settings = facts.settings
    others = settings.api_keys or settings.mtls_clients or settings.session_login or settings.dpop != "off"
    if others or len(settings.token_issuers) != 1:
        return None
    (issuer,) = settings.token_issuers
    return issuer if issuer.issuer.startswith("https://") and issuer.introspection_uri is None else None


def _route_keys(facts: Facts) -> Iterator[str]:
    for route in facts.routes:
        if route.public and (path := _gateway_path(route)):
            for method in route.methods:
                yield f"{method} {path}"


def _gateway_path(route: RouteFacts) -> str | None:
    """Return the path in the syntax of the gateway; None for a path with variables, which stays closed there.

    Braces would be parsed as a variable, so a path with special characters also stays closed.
    """
    return route.literal if route.literal and _PLAIN.fullmatch(route.literal) else None


def _responses(facts: Facts) -> Iterator[GatewayResponse]:
    yield _response("REQUEST_TOO_LARGE", 413, PayloadTooLarge)
    yield _response("THROTTLED", 429, RateLimited, 1)
    yield _response("QUOTA_EXCEEDED", 429, RateLimited, 60)
    yield _response("WAF_FILTERED", 429, RateLimited, 300)
    yield _response("INTEGRATION_FAILURE", 503, DependencyUnavailable, 5)
    timeout = web.problems(facts, "$context.requestId")["504"]
    yield GatewayResponse("INTEGRATION_TIMEOUT", timeout.status, timeout.code, None, timeout.document)
    yield _response("DEFAULT_4XX", None, MalformedRequest)
    yield _response("DEFAULT_5XX", None, DependencyUnavailable, 5)


def _response(kind: str, status: int | None, error: type[SecureMLError], retry: int | None = None) -> GatewayResponse:
    members = {"type": "about:blank", "detail": error.detail, "code": error.slug, "request_id": "$context.requestId"}
    return GatewayResponse(kind, status, error.slug, retry, json.dumps(members))


def exceed(facts: Facts) -> Iterator[str]:
    """Yield the limits of the gateway that the app exceeds."""
    if facts.options.request_timeout > LONGEST_SECONDS:
        yield f"the timeout of the gateway is {LONGEST_SECONDS} s; request_timeout is longer"
    if facts.max_body_bytes > LARGEST_BYTES:
        yield "the gateway rejects bodies above 10 MB with 413, even if a policy allows them"
    if any(route.stream for route in facts.routes):
        yield "the gateway buffers responses, so it does not support streaming"
    if facts.options.client_certificates == "optional":
        yield "the gateway does not support optional client certificates; set client_certificates to required or off"


def warn(facts: Facts) -> Iterator[str]:
    """Yield warnings about missing settings and unsupported features."""
    if facts.options.client_certificates == "required":
        yield "the gateway does not forward client certificates; clients also need another credential"
    if only_issuer(facts) is None:
        yield "http-api.yaml is not generated, because its authorizer would reject credentials that the app accepts"
    if not facts.behind_proxy:
        yield "SECURE_ML_TRUSTED_PROXIES does not contain the subnets of the load balancer"


TARGET = Target(
    name="aws-api-gateway",
    summary="CloudFormation templates for AWS API Gateway: domain, TLS, private link, throttling, firewall and log",
    overlay="your own stack that imports the resources of this one",
    make=make,
    advice=(
        "aws-api-gateway: check with  cfn-lint {folder}/*.yaml",
        "aws-api-gateway: deploy with  aws cloudformation deploy --template-file {folder}/rest-api.yaml ...",
    ),
    warn=warn,
    exceed=exceed,
)
