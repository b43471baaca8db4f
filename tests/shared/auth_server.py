"""The example authorization server in a separate process, over HTTPS."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from certificates import Certificate, make_certificate
from plain_http import Answer
from servers import PATIENCE, accepts, end_at_once, free_port, started

ROOT = Path(__file__).parents[2]
API = "https://models.test"
"""The default audience of tokens."""

OTHER_API = "https://elsewhere.test"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class AuthServer:
    """A running authorization server.

    :param authority: the file with the certificate to trust; ``SSL_CERT_FILE`` of a process that talks to the server.
    :param secrets: of the clients ``demo`` (JWTs), ``demo-opaque`` (opaque tokens) and ``models`` (introspects).
    """

    issuer: str
    authority: Path
    state: Path
    secrets: Mapping[str, str]
    log: Path

    def call(self, method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request."""
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = HTTPSConnection(urlsplit(self.issuer).netloc, timeout=10, context=context)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, path: str, client: str, form: Mapping[str, str], secret: str | None = None) -> Answer:
        """Send a form as a client, with its own secret by default."""
        credentials = basic(client, self.secrets[client] if secret is None else secret)
        return self.call("POST", path, urlencode(form), FORM | credentials)

    def token(self, client: str = "demo", **parameters: str) -> str:
        """Return an access token; ``scope`` and ``resource`` may be given."""
        response = self.post("/token", client, {"grant_type": "client_credentials", **parameters})
        if response.status != 200:
            raise RuntimeError(response.body.decode())
        return str(response.json["access_token"])

    def introspect(self, token: str) -> Any:
        """Introspect a token as the resource server, and return the response."""
        return self.post("/introspect", "models", {"token": token}).json

    def revoke(self, token: str, client: str = "demo") -> int:
        """Revoke a token, and return the status."""
        return self.post("/revoke", client, {"token": token}).status

    def rotate(self) -> str:
        """Rotate the signing key, and return the ``kid`` of the new one."""
        return _setup(self.state, "--rotate").strip()

    def entry(self, audience: str = API) -> dict[str, Any]:
        """Return the entry of ``SECURE_ML_TOKEN_ISSUERS`` that accepts the tokens of this server, of both kinds."""
        secret = self.state / "introspection_secret"
        secret.write_text(self.secrets["models"])
        return {
            "issuer": self.issuer,
            "audience": audience,
            "algorithms": ["ES256"],
            "discover": True,
            "introspection_uri": f"{self.issuer}/introspect",
            "client_id": "models",
            "client_secret": f"file:{secret}",
            "private_network": True,
        }


def basic(name: str, secret: str) -> dict[str, str]:
    """Return the header of HTTP Basic for two strings that need no encoding."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


@contextmanager
def auth_server(folder: Path) -> Iterator[AuthServer]:
    """Run the server with all its files in one directory."""
    certificate, state = make_certificate(folder), folder / "auth"
    secrets = json.loads(_setup(state))
    port = free_port()
    issuer = f"https://127.0.0.1:{port}"
    environ = _environ(certificate) | {
        "AUTH_ISSUER": issuer,
        "AUTH_RESOURCES": f"{API} {OTHER_API}",
        "AUTH_STATE": str(state),
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
    log = folder / "auth_server.log"
    command = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "example_app/gunicorn.conf.py")]
    command.append("example_app.auth_server:create_app()")
    with started(command, partial(accepts, port), log, stop=end_at_once, cwd=ROOT, env=environ):
        yield AuthServer(issuer, certificate.certificate, state, secrets, log)


def _environ(certificate: Certificate) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "AUTH_", "AUTHLIB_"))}
    return kept | {
        "PYTHONWARNINGS": "error::DeprecationWarning",
        "SECURE_ML_SERVE_CERTIFICATE": str(certificate.certificate),
        "SECURE_ML_SERVE_PRIVATE_KEY": str(certificate.key),
    }


def _setup(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "example_app.auth_setup", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
