"""An app with all observability features, for tests that plant canaries, and the requests that plant them."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from logging.handlers import WatchedFileHandler
from typing import Any
from urllib.parse import urlencode

from flask import Flask, request
from marshmallow import Schema, ValidationError, fields

from flask_secure_ml import SecureML, protect
from flask_secure_ml.observe.request_log import JsonFormatter

APP_LOG = "CANARY_APP_LOG"
"""The environment variable with the file of the app's own logger, to which Flask logs tracebacks and URLs of errors."""

REQUEST_LOGGER = "canaries.requests"
PLACES = (
    *("payload", "member", "filename", "token", "jwt", "key", "header", "query", "path", "exception", "schema"),
    *("cookie", "basic", "user", "host", "referer", "agent", "forwarded", "mediatype", "origin", "requestid", "part"),
)
CANARIES = {place: f"c4n4ry-{place}" for place in PLACES}
"""A canary for each position in a request."""

UNKNOWN_URL = "c4n4ry-unknown"
"""A canary in an unknown URL, the only input of a client that the request log keeps."""


class Named(Schema):
    """A name that is never valid, with a message that quotes it."""

    name = fields.String()
    age = fields.Integer()

    def on_bind_field(self, field_name: str, field_obj: Any) -> None:
        """Add a validator that quotes."""
        if field_name == "name":
            field_obj.validators.append(_quoting)


def _quoting(value: str) -> None:
    if "schema" in value:
        raise ValidationError(f"{value!r} is not a name")


def create_app() -> Flask:
    """Return the app, configured from the environment, with the package's logger at its lowest level."""
    app = Flask("canaries")
    app.config.from_prefixed_env()
    package = logging.getLogger("flask_secure_ml")
    package.setLevel(logging.DEBUG)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    package.addHandler(handler)
    package.propagate = False
    if own := os.environ.get(APP_LOG):
        app.logger.handlers[:] = [WatchedFileHandler(own)]
        app.logger.propagate = False
    if requests := os.environ.get("CANARY_REQUEST_LOG"):
        logger = logging.getLogger(REQUEST_LOGGER)
        logger.addHandler(WatchedFileHandler(requests))
        logger.setLevel(logging.INFO)
        logger.propagate = False
    SecureML(app)
    add_routes(app)
    return app


def add_routes(app: Flask) -> None:
    """Add routes that raise errors with their input."""

    @app.post("/predict/<name>")
    @protect(body=Named)
    def predict(name: str, payload: dict[str, Any]) -> str:
        raise ValueError(f"{CANARIES['exception']}: no {name} in {payload}")

    @app.post("/upload/<name>")
    @protect
    def upload(name: str) -> str:
        raise KeyError(f"{CANARIES['exception']}: no {name} in {list(request.files.values())}")

    @app.get("/stream")
    @protect
    def stream() -> Any:
        def parts() -> Iterator[str]:
            yield "a"
            # Without a canary: the server logs the traceback of an error after the start of a response.
            raise ValueError("the stream broke")

        return app.response_class(parts())


@dataclass(frozen=True)
class Planted:
    """A request with canaries."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


def planted_requests(valid: dict[str, str], wrong_key: str) -> Iterator[Planted]:
    """Yield requests with a canary in every position: accepted, rejected in every way, and failing.

    :param valid: the headers of a caller.
    :param wrong_key: a key with an id that exists and another secret.
    """
    everywhere = {
        "User-Agent": CANARIES["agent"],
        "Referer": f"https://{CANARIES['referer']}/",
        "Cookie": f"session={CANARIES['cookie']}; {CANARIES['cookie']}=1",
        "X-Forwarded-For": CANARIES["forwarded"],
        "Origin": f"https://{CANARIES['origin']}.example",
        "X-Request-ID": CANARIES["requestid"],
        "X-Note": CANARIES["header"],
        "Host": f"{CANARIES['host']}.example",
    }
    query = urlencode({CANARIES["query"]: CANARIES["query"]})
    name = CANARIES["path"]
    as_json = {"Content-Type": "application/json"}
    bodies = [
        ({"name": CANARIES["payload"]}, as_json),
        ({"name": CANARIES["schema"], "age": CANARIES["payload"]}, as_json),
        ({CANARIES["member"]: {CANARIES["member"]: 1}}, as_json),
        (f'{{"name": "{CANARIES["payload"]}"', as_json),
        (CANARIES["payload"], {"Content-Type": f"text/{CANARIES['mediatype']}"}),
        (CANARIES["payload"], as_json | {"Content-Encoding": CANARIES["header"]}),
    ]
    for credential in (valid, *_credentials(wrong_key)):
        for body, headers in bodies:
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            yield Planted("POST", f"/predict/{name}?{query}", everywhere | headers | credential, data)
        form = {"Content-Type": f"multipart/form-data; boundary={CANARIES['part']}"}
        yield Planted("POST", f"/upload/{name}?{query}", everywhere | form | credential, _multipart())
        yield Planted("GET", "/stream", everywhere | credential)
        yield Planted("GET", f"/predict/{name}", everywhere | credential)
        yield Planted("GET", f"/{UNKNOWN_URL}?{query}", everywhere | credential)


def _credentials(wrong_key: str) -> Iterator[dict[str, str]]:
    yield {}
    yield {"X-API-Key": wrong_key[:-20] + CANARIES["key"]}
    yield {"X-API-Key": CANARIES["key"]}
    yield {"Authorization": f"ApiKey {CANARIES['key']}"}
    yield {"Authorization": f"Bearer {CANARIES['token']}"}
    yield {"Authorization": f"Bearer {_jwt()}"}
    yield {"Authorization": f"DPoP {CANARIES['token']}", "DPoP": CANARIES["token"]}
    for password in (CANARIES["basic"], wrong_key):
        pair = base64.b64encode(f"{CANARIES['user']}:{password}".encode()).decode()
        yield {"Authorization": f"Basic {pair}"}
    yield {"Authorization": f"{CANARIES['token']} {CANARIES['token']}"}


def _jwt() -> str:
    """Return a token with canaries in its header and claims."""
    canary = CANARIES["jwt"]
    header = {"alg": "ES256", "kid": canary, "typ": "at+jwt", "jku": f"https://{canary}/", canary: canary}
    claims = {"iss": f"https://{canary}.example", "sub": canary, "aud": canary, "jti": canary, "scope": canary}
    parts = [json.dumps(each).encode() for each in (header, claims)]
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in (*parts, canary.encode()))


def _multipart() -> bytes:
    lines = [
        f"--{CANARIES['part']}",
        f'Content-Disposition: form-data; name="{CANARIES["part"]}"; filename="{CANARIES["filename"]}.npy"',
        "",
        CANARIES["payload"],
        f"--{CANARIES['part']}--",
        "",
    ]
    return "\r\n".join(lines).encode()
