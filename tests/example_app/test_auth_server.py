"""The example authorization server, as a process of its own over HTTPS, and with a clock of ours inside this one."""

from __future__ import annotations

import hashlib
import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask
from joserfc import jwt
from joserfc.jwk import KeySet

from auth_server import API, FORM, OTHER_API, AuthServer, auth_server, basic
from example_app.auth_clients import Client, ClientsError, create_clients
from example_app.auth_keys import SigningKeys, SigningKeysError
from example_app.auth_server import ServerMetadata, create_app, metadata
from example_app.auth_setup import Config, main, prepare
from example_app.auth_tokens import LIFETIME
from flask_secure_ml.testing import FakeClock
from servers import complaints

CORPUS = Path(__file__).parents[1] / "corpus" / "auth_server"
HTTPS = "https://127.0.0.1:9443"
Case = dict[str, Any]
Post = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthServer]:
    with auth_server(tmp_path_factory.mktemp("auth")) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(HTTPS, (API,), tmp_path / "state")


@pytest.fixture
def secrets(config: Config) -> dict[str, str]:
    return prepare(config)


@pytest.fixture
def environ(config: Config) -> dict[str, str]:
    return {"AUTH_STATE": str(config.state), "AUTH_RESOURCES": API}


@pytest.fixture
def app(environ: dict[str, str], secrets: dict[str, str], clock: FakeClock) -> Flask:
    return create_app(environ, clock.now)


@pytest.fixture
def post(app: Flask, secrets: dict[str, str]) -> Post:
    def send(path: str, client: str, base_url: str = HTTPS, **form: str) -> Any:
        headers = basic(client, secrets[client])
        return app.test_client().post(path, data=form, headers=headers, base_url=base_url)

    return send


def cases() -> list[Any]:
    return [
        pytest.param(case, id=case["id"])
        for path in sorted(CORPUS.glob("*.json"))
        for case in json.loads(path.read_text())
    ]


def claims_of(server: AuthServer, token: str) -> jwt.Token:
    return jwt.decode(token, KeySet.import_key_set(server.call("GET", "/jwks").json), algorithms=["ES256"])


@pytest.mark.parametrize("case", cases())
def test_rejected(server: AuthServer, case: Case) -> None:
    """An invalid request gets the error of its RFC, without a traceback, and is not cached."""
    hashes = {"hash of demo": hashlib.sha256(server.secrets["demo"].encode()).hexdigest()}
    known = {**server.secrets, **hashes}
    headers = dict(FORM) | ({"Content-Type": case["type"]} if "type" in case else {})
    if "basic" in case:
        headers |= basic(*case["basic"].format_map(known).split(":", 1))
    elif "authorization" in case:
        headers["Authorization"] = case["authorization"]
    body = case["body"] if "type" in case else case["body"].format_map(known)
    response = server.call("POST", case["path"], body + "&x=" + "a" * case["pad"] if "pad" in case else body, headers)
    assert (response.status, response.json["error"]) == (case["status"], case["error"])
    assert response.headers["Cache-Control"] == "no-store"
    assert b"Traceback" not in response.body
    assert ("WWW-Authenticate" in response.headers) is (case["status"] == 401)


def test_names_cannot_be_tried_out(server: AuthServer) -> None:
    """The response for an unknown client is the same as for a wrong secret; Authlib's differ."""
    form = "grant_type=client_credentials"
    known, unknown = (server.call("POST", "/token", form, FORM | basic(name, "x")) for name in ("demo", "nobody"))
    assert (known.status, known.body) == (unknown.status, unknown.body)


def test_metadata(server: AuthServer) -> None:
    """RFC 8414: the document is that of this issuer, valid by Authlib's rules, and its addresses response."""
    document = server.call("GET", "/.well-known/oauth-authorization-server").json
    ServerMetadata(document).validate()
    assert document["issuer"] == server.issuer
    assert document["grant_types_supported"] == ["client_credentials"]
    assert document["scopes_supported"] == ["predict", "metrics"]
    for name in ("token_endpoint", "introspection_endpoint", "revocation_endpoint"):
        assert server.call("POST", document[name].removeprefix(server.issuer), "a=b", FORM).status in {400, 401}
    assert server.call("GET", document["jwks_uri"].removeprefix(server.issuer)).status == 200


@pytest.mark.parametrize("issuer", ["http://login.example", "https://login.example?a=b", ""])
def test_metadata_of_a_wrong_issuer(issuer: str, tmp_path: Path) -> None:
    """Authlib's rules reject an issuer in clear text, with a query, or none (RFC 8414 section 2)."""
    with pytest.raises(ValueError, match="issuer"):
        metadata(Config(issuer, (API,), tmp_path))


def test_metadata_needs_response_types(tmp_path: Path) -> None:
    """The member stays required, though Authlib would also ask for a value that this server does not have."""
    document = metadata(Config(HTTPS, (API,), tmp_path))
    with pytest.raises(ValueError, match="response_types_supported"):
        ServerMetadata({name: value for name, value in document.items() if "response" not in name}).validate()


def test_signed_token(server: AuthServer) -> None:
    """RFC 9068 section 2: the header and the claims of a JWT access token, which lives five minutes."""
    response = server.post("/token", "demo", {"grant_type": "client_credentials", "scope": "predict"})
    token = claims_of(server, response.json["access_token"])
    assert (response.json["token_type"], response.json["expires_in"], response.json["scope"]) == (
        "Bearer",
        300,
        "predict",
    )
    assert response.headers["Cache-Control"] == "no-store"
    assert (token.header["typ"], token.header["alg"]) == ("at+jwt", "ES256")
    assert token.claims.pop("exp") - token.claims.pop("iat") == LIFETIME
    assert len(token.claims.pop("jti")) >= 22
    expected = {"iss": server.issuer, "sub": "demo", "client_id": "demo", "aud": API, "scope": "predict"}
    assert token.claims == expected


def test_opaque_token(server: AuthServer) -> None:
    """The other client gets a random string, a different one each time."""
    first, second = server.token("demo-opaque"), server.token("demo-opaque")
    assert "." not in first
    assert len(first) >= 43
    assert first != second


def test_default_scope(server: AuthServer) -> None:
    """RFC 6749 section 3.3: a client that names no scope gets those that it is registered for."""
    response = server.post("/token", "demo", {"grant_type": "client_credentials", "scope": ""})
    assert response.json["scope"] == "predict metrics"


def test_parameters_in_the_address(server: AuthServer) -> None:
    """RFC 6749 section 3.2: parameters count in the body only; Authlib takes them from the address too."""
    response = server.post("/token?scope=metrics", "demo", {"grant_type": "client_credentials"})
    assert response.json["scope"] == "predict metrics"


def test_body_without_a_length(app: Flask, secrets: dict[str, str]) -> None:
    """A chunked body is rejected, because Werkzeug would cut it at the limit without a word."""
    headers = basic("demo", secrets["demo"]) | FORM
    body = BytesIO(b"grant_type=client_credentials")
    environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    response = app.test_client().post(
        "/token", input_stream=body, headers=headers, base_url=HTTPS, environ_overrides=environ
    )
    assert (response.status_code, response.get_json()["error"]) == (400, "invalid_request")


def test_resource(server: AuthServer) -> None:
    """RFC 8707: a token is for the API that the client names."""
    assert claims_of(server, server.token(resource=OTHER_API)).claims["aud"] == OTHER_API
    assert server.introspect(server.token("demo-opaque", resource=OTHER_API))["aud"] == OTHER_API


@pytest.mark.parametrize("client", ["demo", "demo-opaque"])
def test_introspection(server: AuthServer, client: str) -> None:
    """RFC 7662 section 2.2: the resource server gets the data of a token of either kind."""
    response = server.introspect(server.token(client, scope="metrics"))
    assert response.pop("exp") - response.pop("iat") == LIFETIME
    assert response.pop("jti")
    assert response == {
        "active": True,
        "token_type": "Bearer",
        "scope": "metrics",
        "client_id": client,
        "sub": client,
        "aud": API,
        "iss": server.issuer,
    }


def test_introspection_names_the_token(server: AuthServer) -> None:
    """The ``jti`` of a JWT is the same inside it and in the response, so that it can be revoked by it."""
    token = server.token()
    assert server.introspect(token)["jti"] == claims_of(server, token).claims["jti"]


@pytest.mark.parametrize("client", ["demo", "demo-opaque"])
def test_introspection_is_for_the_resource_server(server: AuthServer, client: str) -> None:
    """RFC 7662 section 2.2: to other clients no token is active, not even their own."""
    response = server.post("/introspect", client, {"token": server.token(client)})
    assert (response.status, response.json) == (200, {"active": False})


@pytest.mark.parametrize("token", ["x", "a.b.c", "\x00", "\u20ac", "a" * 5000])
def test_introspection_of_what_is_no_token(server: AuthServer, token: str) -> None:
    """RFC 7662 section 2.2: an unknown token is not active, without further information."""
    assert server.introspect(token) == {"active": False}


@pytest.mark.parametrize("client", ["demo", "demo-opaque"])
def test_revocation(server: AuthServer, client: str) -> None:
    """RFC 7009: a revoked token of either kind is not active; others stay valid. A repetition is no error."""
    token, other = server.token(client), server.token(client)
    assert (server.revoke(token, client), server.revoke(token, client)) == (200, 200)
    assert server.introspect(token) == {"active": False}
    assert server.introspect(other)["active"] is True


def test_revocation_of_what_is_no_token(server: AuthServer) -> None:
    """RFC 7009 section 2.2: an unknown token is as good as revoked."""
    assert server.revoke("x") == 200


def test_revocation_by_another_client(server: AuthServer) -> None:
    """RFC 7009 section 2.1: only the client that a token was issued to can give it up."""
    token = server.token()
    assert server.revoke(token, "demo-opaque") == 400
    assert server.introspect(token)["active"] is True


def test_rotation(server: AuthServer) -> None:
    """A new key signs at once in every worker; the old one is published without its private part."""
    old = server.token()
    kid = server.rotate()
    published = server.call("GET", "/jwks").json["keys"]
    assert {claims_of(server, server.token()).header["kid"] for _ in range(8)} == {kid}
    assert claims_of(server, old).header["kid"] in {key["kid"] for key in published} - {kid}
    assert len(published) >= 2
    assert all("d" not in key for key in published)
    assert [key.get("d") is None for key in json.loads((server.state / "auth_keys.json").read_text())["keys"]] == [
        False,
        *[True] * (len(published) - 1),
    ]


def test_few_keys_are_published(tmp_path: Path) -> None:
    """Rotations without end do not make the key set grow without end."""
    keys = SigningKeys(tmp_path / "keys.json")
    keys.ensure()
    kids = [keys.rotate() for _ in range(5)]
    assert [key["kid"] for key in keys.public()["keys"]] == kids[:1:-1]


def test_state_is_private(server: AuthServer) -> None:
    """Only the owner can read the state, and it contains no secrets or tokens."""
    token = server.token("demo-opaque")
    assert server.state.stat().st_mode & 0o777 == 0o700
    for path in server.state.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert not any(text.encode() in path.read_bytes() for text in (token, *server.secrets.values()))


def test_log_is_quiet(server: AuthServer) -> None:
    """No errors were logged, whatever the previous tests sent and clients do on its port."""
    with socket.create_connection(("127.0.0.1", urlsplit(server.issuer).port or 0), 10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        # The server ends a connection that does not begin with TLS.
        with suppress(ConnectionResetError):
            assert plain.recv(4096) == b""
    server.token()
    assert complaints(server.log) == []


def test_complaints(tmp_path: Path) -> None:
    """Only warnings about the behaviour of clients are removed from a log."""
    start = "[2026-11-29 09:00:00 +0000] [7]"
    others = [
        f"{start} [ERROR] Error handling request /token",
        f"{start} [WARNING] No keepalived connections can be handled.",
        "Traceback (most recent call last):",
        "app.py:3: DeprecationWarning: Invalid request from ip=127.0.0.1",
    ]
    closed = f"{start} [WARNING] Invalid request from ip=127.0.0.1: TLS/SSL connection has been closed (EOF)"
    (tmp_path / "log").write_text("\n".join([closed, *others, closed]))
    assert complaints(tmp_path / "log") == others


def test_expiry(post: Post, clock: FakeClock) -> None:
    """A token is active to the last second of its five minutes and not one more."""
    token = post("/token", "demo-opaque", grant_type="client_credentials").get_json()["access_token"]
    clock.advance(LIFETIME - 1)
    assert post("/introspect", "models", token=token).get_json()["active"] is True
    clock.advance(1)
    assert post("/introspect", "models", token=token).get_json() == {"active": False}


def test_expired_tokens_are_forgotten(post: Post, clock: FakeClock, config: Config) -> None:
    """The database does not grow with time."""
    for _ in range(3):
        post("/token", "demo-opaque", grant_type="client_credentials")
    clock.advance(LIFETIME)
    post("/token", "demo-opaque", grant_type="client_credentials")
    with closing(sqlite3.connect(config.tokens)) as database:
        assert database.execute("SELECT count(*) FROM tokens").fetchone() == (1,)


def test_clear_text(post: Post) -> None:
    """Without TLS no token is issued; Authlib itself accepts clear text on loopback."""
    response = post("/token", "demo", base_url="http://127.0.0.1:9443", grant_type="client_credentials")
    assert (response.status_code, response.get_json()["error"]) == (400, "invalid_request")


def test_authlibs_switch_for_clear_text(environ: dict[str, str], secrets: object) -> None:
    """The server does not start with the variable that makes Authlib forget about TLS."""
    with pytest.raises(ValueError, match="unset AUTHLIB_INSECURE_TRANSPORT"):
        create_app(environ | {"AUTHLIB_INSECURE_TRANSPORT": "1"})


def test_faults_say_nothing(post: Post, config: Config, caplog: pytest.LogCaptureFixture) -> None:
    """A fault inside is logged; the client hears ``server_error`` and no more."""
    config.keys.write_text("{")
    response = post("/token", "demo", grant_type="client_credentials")
    assert (response.status_code, response.get_json()) == (500, {"error": "server_error"})
    assert "unexpected SigningKeysError" in caplog.text


def test_encoded_credentials(environ: dict[str, str], config: Config) -> None:
    """RFC 6749 section 2.3.1: name and secret are form-encoded inside HTTP Basic."""
    prepare(config)
    secret = create_clients(config.clients, [Client("a b:c", "", scopes=("predict",))])["a b:c"]
    headers = basic("a+b%3Ac", secret)
    response = (
        create_app(environ)
        .test_client()
        .post("/token", data={"grant_type": "client_credentials"}, headers=headers, base_url=HTTPS)
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        pytest.param("auth_clients.json", None, ClientsError, id="no-clients"),
        pytest.param("auth_clients.json", "{}", ClientsError, id="damaged-clients"),
        pytest.param("auth_clients.json", '{"clients": [{"scopes": [], "x": 1}]}', ClientsError, id="foreign-clients"),
        pytest.param("auth_keys.json", None, SigningKeysError, id="no-keys"),
        pytest.param("auth_keys.json", '{"keys": []}', SigningKeysError, id="empty-keys"),
        pytest.param("auth_keys.json", '{"keys": [{"kty": "EC"}]}', SigningKeysError, id="damaged-keys"),
    ],
)
def test_unusable_state(
    environ: dict[str, str], config: Config, secrets: object, file: str, content: str | None, error: type[Exception]
) -> None:
    """A server with missing or damaged state does not start, and reports the file and a remedy."""
    path = config.state / file
    path.write_text(content) if content is not None else path.unlink()
    with pytest.raises(error, match=rf"{file}.*(auth_setup creates it|delete it)"):
        create_app(environ)


def test_public_key_alone_does_not_sign(environ: dict[str, str], config: Config, secrets: object) -> None:
    """A file whose newest key has no private part is rejected at the start, not at the first token."""
    config.keys.write_text(json.dumps(SigningKeys(config.keys).public()))
    with pytest.raises(SigningKeysError, match="delete it"):
        create_app(environ)


def test_setup_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints new secrets every time and keeps the signing key; ``--rotate`` does the opposite."""
    state = str(tmp_path / "state")
    keys, outputs, signing = SigningKeys(tmp_path / "state" / "auth_keys.json"), [], []
    for arguments in ([state], [state], [state, "--rotate"]):
        assert main(arguments) == 0
        outputs.append(capsys.readouterr().out)
        signing.append(keys.public()["keys"][0]["kid"])
    first, second = json.loads(outputs[0]), json.loads(outputs[1])
    assert first.keys() == second.keys() == {"demo", "demo-opaque", "models"}
    assert not set(first.values()) & set(second.values())
    assert signing == [signing[0], signing[0], outputs[2].strip()]
    assert len(keys.public()["keys"]) == 2


def test_setup_command_without_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first start there is no key to rotate; one line reports this."""
    assert main([str(tmp_path), "--rotate"]) == 1
    assert "auth_keys.json: No such file" in capsys.readouterr().err
