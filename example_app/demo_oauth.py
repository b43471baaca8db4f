"""The example with OAuth2 in one command: ``python -m example_app.demo_oauth``, which ``make demo-oauth`` runs.

It serves the API like ``make demo``, and an authorization server whose tokens the API accepts. Environment variables:
``HOST``, ``PORT``, ``AUTH_PORT``, ``DEMO_STATE`` and ``RESOURCE`` (the URLs of further APIs for which tokens are
issued, separated by spaces).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace

from . import auth_setup
from .auth_clients import ClientsError
from .auth_keys import ALGORITHM, SigningKeysError
from .demo import Api, curl, curl_command, main, payload, prepare, say
from .files import PRIVATE, write
from .server import Address, Server, ServerError

COMMAND = "make demo-oauth"
AUTH_PORT = 9443
AUTH_APP = "example_app.auth_server:create_app()"
# The client id of the API itself, for introspecting opaque tokens.
RESOURCE_SERVER = "models"
# The seconds for which each server is watched in turn.
WATCHED = 0.5


def run(environ: Mapping[str, str]) -> None:
    """Serve the API and the authorization server until one of them ends.

    :raises ServerError: one of them cannot run.
    """
    host = environ.get("HOST", "")
    own = Address.parse(host, environ.get("PORT", ""), COMMAND)
    auth = Address.parse(host, environ.get("AUTH_PORT", ""), COMMAND, "AUTH_PORT", AUTH_PORT)
    if own.port == auth.port:
        raise ServerError(f"PORT and AUTH_PORT are both {own.port}; choose another for one of them")
    own.check_free()
    auth.check_free()
    api = prepare(environ, own.host)
    config, secrets = _authorization_server(environ, api, own, auth)
    api = replace(api, settings={**api.settings, **oauth_settings(api, config, secrets[RESOURCE_SERVER])})
    say("Starting gunicorn twice: the authorization server and the API ...")
    with (
        Server(auth, {**environ, **api.tls, **_auth_environ(config)}, AUTH_APP) as issuer,
        Server(own, {**environ, **api.tls, **api.settings}) as server,
    ):
        issuer.wait_until_ready(api.authority)
        server.wait_until_ready(api.authority)
        _welcome(commands(api, config, secrets, environ), curl_command(own, api.authority, api.key, environ))
        while True:
            issuer.wait(WATCHED)
            server.wait(WATCHED)


def oauth_settings(api: Api, config: auth_setup.Config, secret: str) -> dict[str, str]:
    """Return the settings with which the API accepts tokens of the authorization server.

    :param secret: the secret of the API for introspection; it is written to a file that only the owner can read.
    """
    path = api.state / "introspection_secret"
    write(path, secret.encode(), PRIVATE)
    issuer = {
        "issuer": config.issuer,
        "audience": config.resources[0],
        "algorithms": [ALGORITHM],
        "discover": True,
        "introspection_uri": f"{config.issuer}/introspect",
        "client_id": RESOURCE_SERVER,
        "client_secret": f"file:{path}",
        # The authorization server listens on this machine.
        "private_network": True,
    }
    return {
        "FLASK_SECURE_ML_TOKEN_ISSUERS": json.dumps([issuer]),
        "FLASK_SECURE_ML_RESOURCE_URI": config.resources[0],
        # Introspect opaque tokens for each request, so that revoked ones are rejected at once.
        "FLASK_SECURE_ML_INTROSPECTION_CACHE_SECONDS": "0",
        "FLASK_SECURE_ML_CHECK_IGNORE": json.dumps({"SML222": "the authorization server is on this machine"}),
        # The API connects only to the authorization server, so this is the only authority that it needs to trust.
        "SSL_CERT_FILE": str(api.authority),
    }


def commands(
    api: Api, config: auth_setup.Config, secrets: Mapping[str, str], environ: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return commands for any POSIX shell, to be run in this order, each with a description."""
    begin = shlex.join([*curl(api.authority, environ), "--silent", "--show-error"])
    image = api.state / "three.json"
    write(image, payload().encode())
    body = f"-H 'Content-Type: application/json' -d {shlex.quote(f'@{image}')} {config.resources[0]}/v1/predict"
    opaque = shlex.quote(f"demo-opaque:{secrets['demo-opaque']}")
    return [
        ("Get a token, a JWT that is valid for five minutes:", _token_command(begin, config, "TOKEN", "demo", secrets)),
        ("Request a prediction with it:", f'{begin} -H "Authorization: Bearer $TOKEN" {body}'),
        ("The same with an opaque token:", _token_command(begin, config, "OPAQUE", "demo-opaque", secrets)),
        ("", f'{begin} -H "Authorization: Bearer $OPAQUE" {body}'),
        ("Revoke it:", f'{begin} -u {opaque} -d "token=$OPAQUE" {config.issuer}/revoke'),
        ("Now it is rejected, with 401:", f'{begin} -H "Authorization: Bearer $OPAQUE" {body}'),
    ]


def _token_command(
    begin: str, config: auth_setup.Config, variable: str, client: str, secrets: Mapping[str, str]
) -> str:
    asking = (
        f"{begin} -u {shlex.quote(f'{client}:{secrets[client]}')} -d grant_type=client_credentials -d scope=predict"
    )
    reading = r"""sed -n 's/.*"access_token": *"\([^"]*\)".*/\1/p'"""
    return f"{variable}=$({asking} {config.issuer}/token | {reading})"


def _authorization_server(
    environ: Mapping[str, str], api: Api, own: Address, auth: Address
) -> tuple[auth_setup.Config, dict[str, str]]:
    resources = (own.url, *environ.get("RESOURCE", "").split())
    config = auth_setup.Config(auth.url, resources, api.state)
    try:
        secrets = auth_setup.prepare(config)
    except (ClientsError, SigningKeysError) as error:
        raise ServerError(str(error)) from None
    say("Created new secrets for the OAuth2 clients demo and demo-opaque; those from earlier starts no longer work.")
    return config, secrets


def _auth_environ(config: auth_setup.Config) -> dict[str, str]:
    return {
        "AUTH_ISSUER": config.issuer,
        "AUTH_RESOURCES": " ".join(config.resources),
        "AUTH_STATE": str(config.state),
    }


def _welcome(lines: list[tuple[str, str]], with_key: str) -> None:
    say("\nBoth servers are running (Ctrl-C to stop). In another terminal:\n")
    for text, command in [*lines, ("API keys work as before:", with_key)]:
        say(f"{text}\n\n{command}\n" if text else f"{command}\n")
    say("The API accepts a revoked JWT until it expires, because it does not send JWTs to the authorization server.")
    say("The request log follows, one line of JSON per request:")


if __name__ == "__main__":
    sys.exit(main(os.environ, run))
