"""The demo, started as a user starts it, and called as it says."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo_process import PATIENCE, Demo, client_context, demo_environ, get, started
from example_app.demo import THREE, curl_command
from example_app.server import Address
from example_app.training import split
from flask_secure_ml.observe.audit.reading import records_of
from programs import needs


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "state"


@pytest.fixture(scope="module")
def demo(state: Path) -> Iterator[Demo]:
    with started(state) as running:
        assert running.process.poll() is None, running.log.read_text()
        yield running


def _predictions(demo: Demo) -> Any:
    """Send the request of the printed command, without curl."""
    connection = HTTPSConnection("127.0.0.1", demo.port, timeout=10, context=client_context(demo))
    try:
        connection.request("POST", "/v1/predict", demo.curl[demo.curl.index("-d") + 1], demo.headers)
        return json.loads(connection.getresponse().read())["predictions"]
    finally:
        connection.close()


def _lines(demo: Demo) -> list[dict[str, Any]]:
    return [json.loads(line) for line in demo.log.read_text().splitlines() if line.startswith("{")]


@needs("curl")
def test_printed_command_responses(demo: Demo) -> None:
    """The curl line, run as it was printed, responds with the digit that the image shows."""
    words = ["curl", "--silent", "--show-error", *demo.curl[1:]]
    printed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    response = json.loads(printed.stdout)
    assert response["predictions"] == [3]
    assert response["probabilities"][0][3] > 0.5


def test_request_of_the_printed_command(demo: Demo) -> None:
    """The same request by another client."""
    assert _predictions(demo) == [3]


def test_the_api_can_be_read(demo: Demo) -> None:
    """The printed URL shows the page, and the OpenAPI document is public."""
    assert f"https://127.0.0.1:{demo.port}/docs" in " ".join(demo.said)
    assert [get(demo, path, {}) for path in ("/docs", "/openapi.json")] == [200, 200]


def test_image_is_a_real_one_that_training_did_not_see() -> None:
    """The image in the printed command comes from the data, and is a three."""
    _, unseen, _, digits = split()
    assert digits[(unseen == np.array(THREE)).all(axis=1)].tolist() == [3]


def test_says_what_it_does(demo: Demo) -> None:
    """Each step has its line."""
    said = "\n".join(demo.said)
    for words in ("Training", "Model ready", "Created the development certificate", "API key", "Serving on https://"):
        assert words in said


def test_key_can_read_the_model_card(demo: Demo) -> None:
    """The printed key is good for the other endpoints too."""
    assert get(demo, "/v1/model", demo.headers) == 200


def test_without_a_key(demo: Demo) -> None:
    """A caller without the key is rejected by the real server."""
    assert get(demo, "/v1/model", {}) == 401


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_tls(demo: Demo, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are spoken."""
    assert get(demo, "/healthz", {}, version) == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_old_tls_is_rejected(demo: Demo) -> None:
    """A client that supports at most TLS 1.1 gets an alert."""
    context = ssl.create_default_context(cafile=str(demo.authority))
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", demo.port), 10) as plain, pytest.raises(ssl.SSLError, match="alert"):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_clear_text_gets_nothing(demo: Demo) -> None:
    """A request in clear text on the TLS port is not responded to."""
    with socket.create_connection(("127.0.0.1", demo.port), 10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            response = plain.recv(1000)
        except ConnectionResetError:
            response = b""
    assert not response.startswith(b"HTTP/")


def test_forwarded_headers_are_not_believed(demo: Demo) -> None:
    """A client that claims another address and scheme is logged under its own address, and responded to over TLS."""
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}
    assert get(demo, "/healthz", forged) == 200
    assert "203.0.113.9" not in demo.log.read_text()


def test_request_log(demo: Demo) -> None:
    """Every request has its JSON line on standard error, without the key."""
    _predictions(demo)
    assert any(line["endpoint"] == "predict" and line["status"] == 200 for line in _lines(demo))
    assert demo.headers["X-API-Key"] not in demo.log.read_text()


def test_audit_log(demo: Demo, state: Path) -> None:
    """The printed command verifies the log, which has a record of a prediction with the model that made it."""
    assert _predictions(demo) == [3]
    command = next(line for line in demo.said if "secure-ml audit verify" in line)
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "ok: the log is intact"), done.stdout
    assert "External checkpoints cover" in done.stdout
    served = [
        each for each in records_of(state / "audit") if (each.get("endpoint"), each.get("status")) == ("predict", 200)
    ]
    assert {(each["rows"], each["model"][:7]) for each in served} == {(1, "digits@")}


def test_secrets_are_private(demo: Demo, state: Path) -> None:
    """Only the owner can read the state, and the key itself is not in it."""
    assert state.stat().st_mode & 0o777 == 0o700
    for name in ("server.key", "ca.key", "pepper", "api_keys.json", "audit/keys.json", "audit-verification.key"):
        assert (state / name).stat().st_mode & 0o777 == 0o600
    assert not any(
        demo.headers["X-API-Key"].encode() in path.read_bytes() for path in state.rglob("*") if path.is_file()
    )


def test_busy_port(demo: Demo, tmp_path: Path) -> None:
    """A second demo on the same port reports this in one line, before it creates any files."""
    environ = demo_environ(DEMO_STATE=str(tmp_path / "state"), PORT=str(demo.port))
    second = subprocess.run(
        [sys.executable, "-m", "example_app.demo"], env=environ, capture_output=True, text=True, check=False, timeout=30
    )
    choose = f"choose another: make demo PORT={demo.port + 1}"
    assert second.returncode == 1
    assert second.stderr == f"demo: port {demo.port} is in use; {choose}\n"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_and_started_again(demo: Demo, state: Path, number: signal.Signals, tmp_path: Path) -> None:
    """A signal ends the demo and gunicorn cleanly; the next start keeps the certificate and makes a new key."""
    copy = tmp_path / "state"
    shutil.copytree(state, copy)
    authority = (copy / "ca.pem").read_bytes()
    with started(copy) as again:
        assert _predictions(again) == [3]
        assert get(again, "/v1/model", demo.headers) == 401
        assert again.stop(number) == 0
    assert again.authority.read_bytes() == authority
    assert "Training" not in "\n".join(again.said)
    assert again.said[-1] == "Stopped."
    assert "Traceback" not in again.log.read_text()
    assert len(json.loads((copy / "api_keys.json").read_text())["keys"]) == 1
    Address("127.0.0.1", again.port).check_free()


def test_server_that_cannot_start(tmp_path: Path) -> None:
    """When gunicorn ends, its error is shown and the demo ends with status 1."""
    with started(tmp_path / "state", FLASK_SECURE_ML_REALMM="typo") as broken:
        assert broken.process.wait(PATIENCE) == 1
    assert "SECURE_ML_REALMM: is not known" in broken.log.read_text()
    assert "demo: gunicorn ended with status" in broken.log.read_text()


def test_command_survives_the_shell() -> None:
    """A path with blanks and a proxy in the environment do not break the printed command."""
    line = curl_command(Address("127.0.0.1", 8443), Path("/a b/ca.pem"), "k", {"HTTPS_PROXY": "http://proxy"})
    words = shlex.split(line)
    assert words[1:5] == ["--cacert", "/a b/ca.pem", "--noproxy", "*"]
    assert json.loads(words[-2]) == {"instances": [list(THREE)]}
