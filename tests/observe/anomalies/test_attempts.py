"""Identities in rejected credentials of every kind, without penalties for the real owner."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request

from certificates import authority, issue
from flask_secure_ml import public
from flask_secure_ml.authentication.api_keys.key import new_key
from flask_secure_ml.authentication.claimed import claimed_identity, unverified_subject
from flask_secure_ml.errors import NotAuthenticated, UnusableCredential
from flask_secure_ml.exchange import Exchange
from flask_secure_ml.observe.anomalies import Anomaly
from flask_secure_ml.principal import Principal, SystemClock
from flask_secure_ml.signals import anomaly_detected
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import make_api_key, make_key_set, make_signing_key, make_token
from support import HTTPS, RANDOM_SECRET, MakeApp, caller

PENALTIES = {"credentials": "block", "scanning": "block", "rejections": "block", "rate": "block"}


@pytest.fixture
def sent() -> Iterator[list[Anomaly]]:
    found: list[Anomaly] = []

    def note(_app: object, anomaly: Anomaly) -> None:
        found.append(anomaly)

    anomaly_detected.connect(note)
    yield found
    anomaly_detected.disconnect(note)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def jwt(subject: str, nonce: int = 0) -> str:
    return f"{part({'alg': 'ES256'})}.{part({'iss': 'https://i', 'sub': subject, 'jti': str(nonce)})}.c2ln"


class Named:
    name = "named"


def attempted(credential: object, identity: str = "", claimed: str = "") -> str:
    error = NotAuthenticated("x")
    error.claimed = claimed
    return claimed_identity(Named, credential, error, identity)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (attempted(jwt("ada", 1)), attempted(jwt("ada", 2)), True),
        (attempted(jwt("ada")), attempted(jwt("bob")), False),
        (attempted((object(), jwt("ada"))), attempted(jwt("ada", 3)), True),
        (attempted(b"certificate 1"), attempted(b"certificate 2"), False),
        (attempted("pw1", "pin:ada"), attempted("pw2", "pin:ada"), True),
        (attempted("pw", "pin:ada"), attempted("pw", "pin:bob"), False),
        (attempted("key1", claimed="k1"), attempted("key2", claimed="k1"), True),
        (attempted("no key 1"), attempted("no key 2"), False),
        (attempted("a.b.c"), attempted("a.b.d"), False),
    ],
)
def test_whose_it_is(first: str, second: str, *, same: bool) -> None:
    """By the claimed identity, or else by the value of the credential."""
    assert (first == second) is same
    assert first.startswith("named:")


def test_it_reveals_no_secret() -> None:
    """Other strings are kept as twelve bits, typed strings as a digest, and an API key as its id."""
    assert len(attempted("hunter2")) == len("named:?abc")
    assert "ada" not in attempted("x", "pin:ada")
    assert attempted("x", claimed="k1") == "named:k1"


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "a.b",
        "a.b.c",
        f"a.{part([])}.c",
        f"a.{part({'iss': 'i'})}.c",
        f"a.{part({'sub': 7})}.c",
        7,
        None,
        "a." + "[" * 50 + ".c",
        f"a.{part({'sub': 'x'})}.c" + "d" * 20_000,
    ],
)
def test_what_names_nobody(credential: object) -> None:
    """It is not an error."""
    assert unverified_subject(credential) == ""


class Fails:
    """An authenticator of a kind of its own."""

    name = "own"
    challenge = "Own"

    def find(self, request: Request, exchange: Exchange) -> str | None:
        return request.headers.get("X-Own")

    def verify(self, credential: str, exchange: Exchange) -> Principal:
        if credential.startswith("expired"):
            raise UnusableCredential("expired")
        raise NotAuthenticated("wrong")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([{"X-API-Key": new_key()} for _ in range(12)], True),
        ([{"X-API-Key": f"nonsense-{n}"} for n in range(30)], True),
        ([{"X-Own": f"wrong-{n}"} for n in range(30)], True),
        ([{"X-Own": jwt(f"user{n}")} for n in range(12)], True),
        ([{"X-Own": jwt("user", n)} for n in range(30)], False),
        ([{"X-Own": f"expired-{n}"} for n in range(30)], False),
        ([{} for n in range(30)], False),
    ],
    ids=["keys", "no keys", "own", "tokens", "one subject", "expired", "none"],
)
def test_one_network_tries_many(
    protected: MakeApp,
    sent: list[Anomaly],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    headers: list[dict[str, str]],
    *,
    found: bool,
) -> None:
    """Ten different identities in an hour are reported; a client with one wrong or expired credential is not."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(
        ANOMALIES={"credentials": "event"},
        API_KEYS=str(tmp_path / "k"),
        API_KEY_PEPPER="env:PEPPER",
        FAILED_AUTH_LIMITS=["1000/minute"],
        parts={"authenticators": [Fails()]},
    )
    make_api_key(app)
    client = app.test_client()
    assert {client.get("/x", base_url=HTTPS, headers=each).status_code for each in headers} == {401}
    assert [(each.signal, each.kind, each.subject) for each in sent] == [
        ("credentials", "network", "127.0.0.1")
    ] * found


def basic(_n: int) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'user:{new_key()}'.encode()).decode()}"}


def token(subject: str) -> dict[str, str]:
    forged = make_signing_key("ES256", "current")
    signed = make_token(
        forged, issuer="https://issuer.example", audience="models", now=time.time(), claims={"sub": subject}
    )
    return {"Authorization": f"Bearer {signed}"}


def certificate(_n: int) -> dict[str, str]:
    der = issue("CN=trainer,O=Example").der
    return {"Client-Cert": f":{base64.b64encode(der).decode()}:", "X-Forwarded-Proto": "https"}


@pytest.mark.parametrize(
    ("sending", "found"),
    [
        (basic, True),
        (lambda n: token(f"user{n}"), True),
        (lambda _: token("ada"), False),
        (certificate, True),
    ],
    ids=["Basic", "Bearer", "Bearer of one subject", "certificates"],
)
def test_every_kind_of_credential(
    protected: MakeApp,
    sent: list[Anomaly],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sending: Callable[[int], dict[str, str]],
    *,
    found: bool,
) -> None:
    """Forged or self-signed credentials are rejected, and the sending network is reported."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(authority().pem)
    key_set = json.loads(make_key_set(make_signing_key("ES256", "current")))
    app = protected(
        parts={"clock": SystemClock(), "authenticators": []},
        ANOMALIES={"credentials": "event"},
        API_KEYS=str(tmp_path / "k"),
        API_KEY_PEPPER="env:PEPPER",
        API_KEY_SCHEMES=["x-api-key", "basic"],
        TOKEN_ISSUERS=[
            {"issuer": "https://issuer.example", "audience": "models", "algorithms": ["ES256"], "jwks": key_set}
        ],
        MTLS_CLIENTS=[{"client": "trainer", "subject_dn": "CN=trainer,O=Example"}],
        MTLS_CA_FILE=str(authorities),
        TRUSTED_PROXIES=["127.0.0.1"],
        CLIENT_CERTIFICATE_HEADER="Client-Cert",
        FAILED_AUTH_LIMITS=["1000/minute"],
    )
    make_api_key(app)
    client = app.test_client()
    for n in range(12):
        headers = {"X-Forwarded-For": "192.0.2.1"} | sending(n)
        assert client.get("/x", base_url=HTTPS, headers=headers).status_code == 401
    assert [(each.signal, each.subject) for each in sent] == [("credentials", "192.0.2.1")] * found


def keyed(protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[Flask, str]:
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    app = protected(
        ANOMALIES=PENALTIES | {"targeted": "block"},
        API_KEYS=str(tmp_path / "k"),
        API_KEY_PEPPER="env:PEPPER",
        FAILED_AUTH_LIMITS=["1000/minute"],
        FAILED_KEY_LIMITS=["1000/minute"],
        **settings,
    )
    app.add_url_rule("/x", "x", lambda: "ok")
    app.add_url_rule("/open", "open", public(lambda: "ok"))
    return app, make_api_key(app)


def wrong(key: str, n: int) -> str:
    """Return a key with the id of another one and a secret that is not its own."""
    other = new_key()
    head, _, _ = key.rpartition("_")
    return f"{head}_{other.rpartition('_')[2]}" if n % 2 else key[:-1] + ("A" if key[-1] != "A" else "B")


def test_who_knows_the_id_of_a_key(
    protected: MakeApp, sent: list[Anomaly], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cannot have its owner rejected, from however many networks, and with every signal set to block."""
    app, key = keyed(protected, tmp_path, monkeypatch)
    client = app.test_client()
    assert client.get("/x", base_url=HTTPS, headers={"X-API-Key": key}).status_code == 200
    for n in range(60):
        address = {"REMOTE_ADDR": f"192.0.2.{n % 20}"}
        response = client.get(f"/x{n}", base_url=HTTPS, headers={"X-API-Key": wrong(key, n)}, environ_base=address)
        assert response.status_code == 401
    assert {(each.signal, each.kind) for each in sent if each.kind != "network"} == {("targeted", "identity")}
    assert client.get("/x", base_url=HTTPS, headers={"X-API-Key": key}).status_code == 200
    anomalies = state_of(app).anomalies
    assert anomalies is not None
    assert [kind for kind, _, _ in anomalies.penalties.list()] == []


def test_who_shares_a_network(
    protected: MakeApp, sent: list[Anomaly], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker with the same address cannot get others rejected, except anonymous requests."""
    app, key = keyed(protected, tmp_path, monkeypatch)
    client = app.test_client()
    for n in range(40):
        client.get(f"/x{n}", base_url=HTTPS, headers={"X-API-Key": new_key()})
    assert {each.kind for each in sent} == {"network"}
    assert client.get("/open", base_url=HTTPS).status_code == 429
    for _ in range(3):
        assert client.get("/x", base_url=HTTPS, headers={"X-API-Key": key}).status_code == 200
        assert client.get("/x", base_url=HTTPS, headers=caller("ada")).status_code == 200
