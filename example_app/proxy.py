"""A proxy that protects an app from outside, if it needs an older Flask or is not a Flask app.

Only the routes in ``PROXY_ROUTES`` and the headers below are forwarded, to ``PROXY_UPSTREAM`` or the Unix socket
``PROXY_SOCKET``. The policies are those of the proxy. Copy this file: it needs only flask-secure-ml and httpx.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, urlsplit

import httpx
from flask import Flask, Response, abort, request
from werkzeug.exceptions import GatewayTimeout

from flask_secure_ml import SecureML, current_exchange
from flask_secure_ml.errors import DependencyUnavailable

TO_UPSTREAM = (
    *("Accept", "Accept-Language", "Content-Encoding", "Content-Type", "If-Match", "If-Modified-Since"),
    *("If-None-Match", "If-Range", "If-Unmodified-Since", "Range"),
)
"""The request headers that are forwarded. They contain no credential and no information about the caller."""

TO_CLIENT = (
    *("Accept-Ranges", "Allow", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length"),
    *("Content-Range", "Content-Type", "ETag", "Last-Modified", "Location", "Retry-After"),
)
"""The response headers that are forwarded. Cookies are not, because requests do not forward them either."""

SHORT = 1_000_000
"""The maximum size of a response that is read whole, in bytes; longer ones are streamed."""

_SEPARATOR = re.compile(r"[/\\]")

secure_ml = SecureML()


def create_app() -> Flask:
    """Return the proxy, configured from the environment (``FLASK_PROXY_ROUTES``, ``FLASK_SECURE_ML_...``)."""
    app = Flask(__name__, static_folder=None)
    app.config |= {"PROXY_UPSTREAM": "http://127.0.0.1:5000", "PROXY_SOCKET": None, "PROXY_TIMEOUT": 60}
    app.config.from_prefixed_env()
    timeout = httpx.Timeout(app.config["PROXY_TIMEOUT"], connect=2, pool=5)
    # An explicit transport, so that HTTP_PROXY in the environment is ignored.
    transport = httpx.HTTPTransport(uds=app.config["PROXY_SOCKET"])
    client = httpx.Client(transport=transport, timeout=timeout, follow_redirects=False)
    upstream = app.config["PROXY_UPSTREAM"].rstrip("/")

    def forward(**_: object) -> Response:
        message = client.build_request(request.method, _url(upstream), content=_body(), headers=_headers())
        found, body = _send(client, message)
        headers = [(name, found.headers[name]) for name in TO_CLIENT if name in found.headers]
        response = Response(body, found.status_code, [_public(each, upstream) for each in headers])
        # Also if the body is never read, as for HEAD.
        response.call_on_close(found.close)
        return response

    for rule, methods in app.config["PROXY_ROUTES"].items():
        app.add_url_rule(rule, rule.replace(".", "_"), forward, methods=methods)
    secure_ml.init_app(app)
    secure_ml.check(app)
    return app


def _url(upstream: str) -> str:
    # The policy was chosen by the decoded path. Quoting it again ensures that the upstream decodes the same path.
    if not {"", ".", ".."}.isdisjoint(_SEPARATOR.split(request.path)[1:-1]) or request.path.endswith(("/.", "/..")):
        abort(404)
    query = request.query_string.decode("ascii")
    return upstream + quote(request.path) + (f"?{query}" if query else "")


def _headers() -> dict[str, str]:
    headers = {name: request.headers[name] for name in TO_UPSTREAM if name in request.headers}
    headers |= {"Accept-Encoding": "identity", "X-Request-ID": current_exchange.request_id}
    if current_exchange.principal is not None:
        headers["X-Caller"] = quote(current_exchange.principal.id, safe=":@")
    if request.content_length is not None:
        headers["Content-Length"] = str(request.content_length)
    return headers


def _body() -> Iterator[bytes] | None:
    # The guards have checked the length, and set the length of a chunked body.
    return iter(lambda: request.stream.read(65_536), b"") if request.content_length else None


def _send(client: httpx.Client, message: httpx.Request) -> tuple[httpx.Response, Iterable[bytes]]:
    # A short body is read whole, because the options "response" and "scores" of a policy cannot mask a stream.
    try:
        found = client.send(message, stream=True)
        is_short = int(found.headers.get("Content-Length", SHORT + 1)) <= SHORT
        return found, [b"".join(found.iter_raw())] if is_short else found.iter_raw()
    except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
        raise GatewayTimeout("the upstream did not respond in time") from error
    except httpx.TransportError as error:
        raise DependencyUnavailable(f"the upstream: {type(error).__name__}") from error


def _public(header: tuple[str, str], upstream: str) -> tuple[str, str]:
    """Return a header without the URL of the upstream, which a redirect may contain."""
    name, value = header
    if name == "Location" and value.startswith(upstream + "/"):
        value = urlsplit(value)._replace(scheme="", netloc="").geturl()
    return name, value
