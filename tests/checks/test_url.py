"""Findings for a real gunicorn: none for a correct proxy, and one for each fault of a faulty proxy."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from sarif_kit.validate import validation_errors

from certificates import Certificate, issue
from checked_app import create_app
from flask_secure_ml.checks.finding import Severity
from flask_secure_ml.checks.setup import Setup
from flask_secure_ml.checks.url import run_url
from flask_secure_ml.checks.url.client import MOST_REQUESTS, USER_AGENT, Client, credential_ring
from flask_secure_ml.checks.url.site import Site
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.state import state_of
from proxy_faults import FAULTS, MAX_BODY
from servers import Served, free_port, gunicorn
from stored_keys import key_in_file
from support import RANDOM_SECRET
from wrong_proxy import Faults, proxying

DAYS = 86_400.0
ISSUER = {"issuer": "https://as.example", "audience": "https://api.example", "algorithms": ["RS256"]}
TOKENS = json.dumps([ISSUER | {"jwks_uri": "https://as.example/jwks"}])


def certificate_for(folder: Path, name: str, days: float = 90, key: Any = None) -> Certificate:
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    itself = x509.BasicConstraints(ca=True, path_length=None)
    issued = issue("CN=localhost", names=names, usages=(), extensions=[itself], lifetime=days * DAYS, key=key)
    return issued.write(folder, name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("url")


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Certificate:
    return certificate_for(folder, "server")


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, str]:
    plans = {"default": {"requests": ["100000/day"], "quotas": []}}
    # All runs have the same caller, and each uses up the limit of a route.
    found = {
        "LIMIT_BACKOFF": "false",
        "API_KEYS": str(folder / "keys.json"),
        "API_KEY_PEPPER": "env:PEPPER",
        "STORE_URI": f"sqlite:{folder}/state.db",
        "PLANS": json.dumps(plans),
        "MAX_BODY_BYTES": str(MAX_BODY),
        "OPENAPI": "public",
        "TOKEN_ISSUERS": TOKENS,
    }
    return {f"FLASK_SECURE_ML_{name}": value for name, value in found.items()}


@pytest.fixture(scope="module")
def environ(settings: dict[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PEPPER": RANDOM_SECRET, **settings}


@pytest.fixture(scope="module")
def key(folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        return key_in_file(str(folder / "keys.json"))


@pytest.fixture(scope="module")
def plain(folder: Path, certificate: Certificate, environ: dict[str, str], key: str) -> Iterator[Served]:
    """Gunicorn with its own TLS, as the example configures it, without a proxy."""
    config = folder / "tls.conf.py"
    config.write_text(
        "import ssl\n"
        "ciphers = 'ECDHE+AESGCM:ECDHE+CHACHA20'\n"
        "def ssl_context(config, default):\n"
        "    context = default()\n"
        "    context.minimum_version = ssl.TLSVersion.TLSv1_2\n"
        "    return context\n"
    )
    options = ["--threads", "4", "--config", str(config), "--limit-request-field_size", "16380"]
    with gunicorn(folder, certificate, environ, *options, app="checked_app:create_app()") as served:
        yield served


@pytest.fixture(scope="module")
def upstream(folder: Path, environ: dict[str, str], key: str) -> Iterator[Served]:
    """Gunicorn in clear text, which trusts the proxy on this machine."""
    trusting = environ | {"FLASK_SECURE_ML_TRUSTED_PROXIES": '["127.0.0.0/8"]'}
    options = ["--threads", "4", "--limit-request-field_size", "16380"]
    with gunicorn(folder, None, trusting, *options, app="checked_app:create_app()") as served:
        yield served


@pytest.fixture
def app(settings: dict[str, str], key: str, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The app that is served, loaded here."""
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    monkeypatch.setenv("KEY", key)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return create_app()


@pytest.fixture
def check(app: Flask, certificate: Certificate, tmp_path: Path) -> Callable[..., dict[str, list[str]]]:
    """Return the findings by id; errors and warnings unless notes are wanted too."""

    def checked(port: int, *, notes: bool = False, trusted: Certificate | None = None, **options: Any) -> Any:
        setup = Setup(app, state_of(app), {}, tmp_path)
        client = Client(
            f"https://localhost:{port}", credential_ring("env:KEY"), str((trusted or certificate).certificate)
        )
        ids: dict[str, list[str]] = {}
        site = Site(client, options.pop("setup", setup), **options)
        for each in run_url(site, seconds=60):
            if notes or each.severity != Severity.NOTE:
                ids.setdefault(each.check.id, []).append(each.what)
        assert client.sent <= MOST_REQUESTS
        return ids

    return checked


def test_gunicorn_alone(check: Callable[..., Any], plain: Served) -> None:
    """Without a proxy there are no faults; only the host is not checked, as Flask does not by default."""
    assert check(plain.port, notes=True, clear_text_port=plain.port).keys() == {"SML924"}


def test_a_right_proxy(check: Callable[..., Any], upstream: Served, certificate: Certificate) -> None:
    with proxying(upstream.port, certificate) as proxy:
        assert check(proxy.server_port, notes=True) == {}
        assert proxy.agents <= {USER_AGENT, ""}
        assert proxy.connections <= MOST_REQUESTS


@pytest.mark.parametrize("left", [2, 3])
def test_a_caller_whose_limit_is_used_up(
    check: Callable[..., Any], folder: Path, certificate: Certificate, environ: dict[str, str], key: str, left: int
) -> None:
    """A 429 of the app says nothing about the size of bodies, and the check says so."""
    plans = {"default": {"requests": [f"{left}/day"], "quotas": []}}
    changed = {"PLANS": json.dumps(plans), "STORE_URI": "memory:", "TRUSTED_PROXIES": '["127.0.0.0/8"]'}
    limited = environ | {f"FLASK_SECURE_ML_{name}": value for name, value in changed.items()}
    with (
        gunicorn(folder, None, limited, "--threads", "4", app="checked_app:create_app()") as served,
        proxying(served.port, certificate) as proxy,
    ):
        found = check(proxy.server_port, notes=True)
    assert "SML935" not in found
    assert "the maximum size of a body was not checked: a limit of the caller is used up" in found["SML946"]


@pytest.mark.parametrize(("faults", "ids"), FAULTS)
def test_a_wrong_proxy(
    check: Callable[..., Any], upstream: Served, certificate: Certificate, faults: Faults, ids: set[str]
) -> None:
    """Exactly its fault is found."""
    with proxying(upstream.port, certificate, faults) as proxy:
        assert check(proxy.server_port, notes=True).keys() == ids
        assert proxy.connections <= MOST_REQUESTS


def test_a_proxy_that_adds_a_credential(
    check: Callable[..., Any], upstream: Served, certificate: Certificate, key: str
) -> None:
    """Every route is open then, also those that no anonymous request can use without a body or with another scope."""
    with proxying(upstream.port, certificate, Faults(credential=key)) as proxy:
        found = check(proxy.server_port)
    assert found["SML941"] == [
        "an anonymous GET gets status 200",
        "an anonymous POST gets status 400",
        "an anonymous PUT gets status 403",
    ]


def test_suites_without_forward_secrecy(check: Callable[..., Any], upstream: Served, tmp_path: Path) -> None:
    """They need a certificate with an RSA key."""

    def static(context: ssl.SSLContext) -> None:
        context.set_ciphers("kRSA+AESGCM:ECDHE+AESGCM:@SECLEVEL=0")

    files = certificate_for(tmp_path, "rsa", key=rsa.generate_private_key(65_537, 2048))
    with proxying(upstream.port, files, Faults(tls=static)) as proxy:
        found = check(proxy.server_port, trusted=files)
        assert found == {"SML903": ["cipher suites without forward secrecy are accepted"]}


def test_a_certificate_that_ends_soon(check: Callable[..., Any], upstream: Served, tmp_path: Path) -> None:
    soon = certificate_for(tmp_path, "soon", days=3)
    with proxying(upstream.port, soon) as proxy:
        assert check(proxy.server_port, trusted=soon) == {"SML905": ["the certificate expires in 2 days"]}


def test_a_certificate_of_another_authority(
    check: Callable[..., Any], upstream: Served, certificate: Certificate, tmp_path: Path
) -> None:
    """No further request is sent there, and no credential."""
    other = certificate_for(tmp_path, "other")
    with proxying(upstream.port, other) as proxy:
        found = check(proxy.server_port)
        assert found.keys() == {"SML901"}
        assert "certificate is not valid" in found["SML901"][0]
        assert proxy.agents == set()


def test_a_service_that_hangs(app: Flask) -> None:
    """No further request is sent there after the time limit of the first check."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}")
        (finding,) = run_url(Site(client), seconds=0.2)
        assert finding.check.id == "SML005"
        assert client.sent <= 1


def test_nobody_listens(check: Callable[..., Any]) -> None:
    found = check(free_port(), notes=True)
    assert found["SML901"][0].endswith("does not respond: ConnectionRefusedError")
    assert found.keys() == {"SML901"}


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(any_host=True), id="by the app"),
        pytest.param(Faults(any_host=True, replaces=frozenset({403})), id="by the proxy"),
        pytest.param(Faults(), id="by its host"),
    ],
)
def test_clear_text_that_is_rejected(
    check: Callable[..., Any], upstream: Served, certificate: Certificate, faults: Faults
) -> None:
    with proxying(upstream.port, certificate) as secure, proxying(upstream.port, None, faults) as clear:
        assert check(secure.server_port, clear_text_port=clear.server_port) == {}


def test_clear_text_that_is_answered(check: Callable[..., Any], upstream: Served, certificate: Certificate) -> None:
    """A proxy that reports https for clear text makes the app respond there."""
    lying = Faults(any_host=True, scheme="https")
    with proxying(upstream.port, certificate) as secure, proxying(upstream.port, None, lying) as clear:
        found = check(secure.server_port, clear_text_port=clear.server_port)
        what = f"port {clear.server_port} responds in clear text: status 401, not_authenticated"
        assert found == {"SML906": [what]}


def test_silent_clients(check: Callable[..., Any], upstream: Served, certificate: Certificate) -> None:
    """A client with half a request is disconnected within the patience, or reported."""
    with proxying(upstream.port, certificate, Faults(header_timeout=2.0)) as proxy:
        assert check(proxy.server_port, patience=20.0) == {}
    with proxying(upstream.port, certificate) as proxy:
        assert check(proxy.server_port, patience=0.5).keys() == {"SML945"}


def test_a_certificate_header(
    check: Callable[..., Any], app: Flask, upstream: Served, certificate: Certificate, tmp_path: Path
) -> None:
    """No request that is safe to send reveals whether it is forwarded."""
    setup = Setup(app, state_of(app), {}, tmp_path)
    settings = replace(setup.settings, client_certificate_header="X-Forwarded-Client-Cert")
    with proxying(upstream.port, certificate) as proxy:
        changed = replace(setup, state=replace(setup.state, settings=settings))
        assert check(proxy.server_port, notes=True, setup=changed).keys() == {"SML926"}


def test_another_app(check: Callable[..., Any], upstream: Served, certificate: Certificate, app: Flask) -> None:
    """A route that only one side has is named."""
    app.add_url_rule("/v2/predict", "later", lambda: "ok", methods=["GET"])
    with proxying(upstream.port, certificate) as proxy:
        (what,) = check(proxy.server_port)["SML944"]
        assert what == "the served description lacks GET /v2/predict, unlike the app that was loaded"


def test_without_the_app(check: Callable[..., Any], upstream: Served, certificate: Certificate) -> None:
    """The routes are those of the served description."""
    with proxying(upstream.port, certificate) as proxy:
        assert check(proxy.server_port, setup=None, notes=True) == {}
    with proxying(upstream.port, certificate, Faults(itself=frozenset({"/v1/model"}))) as proxy:
        assert check(proxy.server_port, setup=None).keys() == {"SML941", "SML942"}


def test_without_a_credential(app: Flask, upstream: Served, certificate: Certificate) -> None:
    """Skipped checks are listed."""
    with proxying(upstream.port, certificate) as proxy:
        client = Client(f"https://localhost:{proxy.server_port}", None, str(certificate.certificate))
        (found,) = run_url(Site(client), seconds=60)
        assert (found.check.id, "this needs a valid --credential" in found.what) == ("SML946", True)


def test_a_wrong_credential(
    check: Callable[..., Any], upstream: Served, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "wrong-credential-wrong")
    with proxying(upstream.port, certificate) as proxy:
        assert check(proxy.server_port).keys() == {"SML932"}


def test_the_most_requests(app: Flask, upstream: Served, certificate: Certificate) -> None:
    """A run ends there, and reports it."""
    with proxying(upstream.port, certificate) as proxy:
        client = Client(f"https://localhost:{proxy.server_port}", None, str(certificate.certificate), most=4)
        found = {each.check.id for each in run_url(Site(client), seconds=60)}
        assert (client.sent, proxy.connections) == (4, 4)
        assert "SML946" in found


def test_clear_text_on_loopback(app: Flask, upstream: Served) -> None:
    """Before a server of this machine, a scheme that a client makes up shows the other way round."""
    for faults, ids in (
        (Faults(any_host=True), set()),
        (Faults(any_host=True, keeps=frozenset({"x-forwarded-proto"})), {"SML921"}),
    ):
        with proxying(upstream.port, None, faults) as proxy:
            client = Client(f"http://127.0.0.1:{proxy.server_port}")
            found = {each.check.id for each in run_url(Site(client), seconds=60) if each.severity == Severity.ERROR}
            assert found == ids


def test_the_command(app: Flask, upstream: Served, certificate: Certificate, key: str, tmp_path: Path) -> None:
    """It reports what both sides have, and never the credential."""
    with proxying(upstream.port, certificate, Faults(removes=frozenset({"referrer-policy"}))) as proxy:
        words = ["--url", f"https://localhost:{proxy.server_port}", "--ca-file", str(certificate.certificate)]
        words += ["--credential", "env:KEY", "--json", "--sarif", str(tmp_path / "report.sarif")]
        result = app.test_cli_runner().invoke(secure_ml, ["check", *words])
        ids = [each["id"] for each in json.loads(result.stdout)["findings"]]
        assert "SML912" in ids
        assert key not in result.output
        assert result.exit_code == 0
        log = json.loads((tmp_path / "report.sarif").read_text())
        assert validation_errors(log) == []
        places = [each["locations"][0]["physicalLocation"] for each in log["runs"][0]["results"]]
        assert {"artifactLocation": {"uri": f"https://localhost:{proxy.server_port}"}} in places


def test_a_machine_without_the_app(
    upstream: Served, certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service can be checked from anywhere; that the app is not there is a note."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLASK_APP", "")
    with proxying(upstream.port, certificate) as proxy:
        words = ["--url", f"https://localhost:{proxy.server_port}", "--ca-file", str(certificate.certificate), "--json"]
        result = CliRunner().invoke(secure_ml, ["check", *words])
        assert [each["id"] for each in json.loads(result.stdout)["findings"]] == ["SML010", "SML946"]
        assert result.exit_code == 0
