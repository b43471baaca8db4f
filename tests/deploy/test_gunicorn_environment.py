"""The variables that choose gunicorn's settings: each has its effect, and every mistake is reported at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config

from flask_secure_ml.deploy.gunicorn_environment import PREFIX, VARIABLES, settings
from flask_secure_ml.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs/howto/serve.rst"


def found(keep: Any = str, **variables: str) -> dict[str, Any]:
    return settings({PREFIX + name: value for name, value in variables.items()}, keep)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "file.pem"
    path.write_text("PEM")
    return str(path)


@pytest.mark.parametrize(
    ("name", "value", "setting", "expected"),
    [
        ("BIND", "0.0.0.0:8443, [::]:8443", "bind", ["0.0.0.0:8443", "[::]:8443"]),
        ("WORKERS", "7", "workers", 7),
        ("WORKER_CLASS", "sync", "worker_class", "sync"),
        ("THREADS", "3", "threads", 3),
        ("CONNECTIONS", "50", "worker_connections", 50),
        ("TIMEOUT", "12", "timeout", 12),
        ("GRACEFUL_TIMEOUT", "13", "graceful_timeout", 13),
        ("KEEPALIVE", "0", "keepalive", 0),
        ("MAX_REQUEST_LINE", "200", "limit_request_line", 200),
        ("MAX_HEADERS", "10", "limit_request_fields", 10),
        ("MAX_HEADER_BYTES", "300", "limit_request_field_size", 300),
        ("LOG_LEVEL", "error", "loglevel", "error"),
    ],
)
def test_values(name: str, value: str, setting: str, expected: Any) -> None:
    """Each becomes a setting that gunicorn accepts, and differs from the default."""
    config = Config()
    config.set(setting, found(**{name: value})[setting])
    assert found(**{name: value})[setting] == expected
    assert found().get(setting) != expected


def test_files(pem: str) -> None:
    """A certificate, a key and authorities are files; clients may then present certificates."""
    assert found(CERTIFICATE=pem, PRIVATE_KEY=f"file:{pem}", CLIENT_CA=pem) == found() | {
        "certfile": pem,
        "keyfile": pem,
        "ca_certs": pem,
        "cert_reqs": 1,
    }


@pytest.mark.parametrize(("value", "number"), [("off", 0), ("optional", 1), ("required", 2)])
def test_client_certificates(pem: str, value: str, number: int) -> None:
    """They are ignored, accepted or required."""
    assert found(CERTIFICATE=pem, CLIENT_CA=pem, CLIENT_CERTIFICATES=value)["cert_reqs"] == number


def test_pem_in_a_variable(monkeypatch: pytest.MonkeyPatch, pem: str) -> None:
    """The value of a secret is written to a file, whose path gunicorn gets."""
    kept: list[bytes] = []

    def keep(content: bytes) -> str:
        kept.append(content)
        return "/private/pem"

    monkeypatch.setenv("KEY", "the key")
    assert found(keep, CERTIFICATE=pem, PRIVATE_KEY="env:KEY")["keyfile"] == "/private/pem"
    assert kept == [b"the key\n"]


def test_every_mistake_at_once() -> None:
    """An unknown name is an error with the nearest known one, and no value of a secret is quoted."""
    with pytest.raises(ConfigError) as caught:
        found(
            WORKER="2", WORKERS="0", THREADS="four", PRIVATE_KEY="/no/file", CLIENT_CA="env:MISSING", LOG_LEVEL="loud"
        )
    assert caught.value.problems == (
        "SECURE_ML_SERVE_WORKER: unknown variable; did you mean SECURE_ML_SERVE_WORKERS?",
        "SECURE_ML_SERVE_PRIVATE_KEY: the file /no/file does not exist",
        "SECURE_ML_SERVE_WORKERS: must be a number from 1 to 1000, not '0'",
        "SECURE_ML_SERVE_THREADS: must be a number from 1 to 1000, not 'four'",
        "SECURE_ML_SERVE_LOG_LEVEL: must be one of debug, info, warning, error, critical, not 'loud'",
        "SECURE_ML_SERVE_CLIENT_CA: environment variable MISSING is not set",
        "SECURE_ML_SERVE_CLIENT_CA: has no effect without SECURE_ML_SERVE_CERTIFICATE",
    )


def test_client_certificates_need_authorities(pem: str) -> None:
    """Otherwise every client would be rejected."""
    with pytest.raises(ConfigError, match="requires SECURE_ML_SERVE_CLIENT_CA"):
        found(CERTIFICATE=pem, CLIENT_CERTIFICATES="required")


@pytest.mark.parametrize(("concurrency", "workers"), [("", 2), ("5", 5)])
def test_the_number_of_workers(concurrency: str, workers: int) -> None:
    """WEB_CONCURRENCY is gunicorn's own variable; without it there are two."""
    script = (
        "from gunicorn.config import Config\n"
        "import os\n"
        "from flask_secure_ml.deploy.gunicorn_environment import settings\n"
        "config = Config()\n"
        "for name, value in settings(os.environ, str).items(): config.set(name, value)\n"
        "print(config.workers)"
    )
    environ = {name: value for name, value in os.environ.items() if name != "WEB_CONCURRENCY"}
    if concurrency:
        environ["WEB_CONCURRENCY"] = concurrency
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert int(done.stdout) == workers


def test_a_mistake_stops_gunicorn() -> None:
    """With the sentence alone, before it listens."""
    command = [sys.executable, "-m", "gunicorn", "-c", "python:flask_secure_ml.deploy.gunicorn", "plain_site:app"]
    environ = os.environ | {"SECURE_ML_SERVE_WORKERS": "many"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "  - SECURE_ML_SERVE_WORKERS: must be a number from 1 to 1000, not 'many'\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_gevent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads are the fallback."""
    assert found()["worker_class"] == "gevent"
    monkeypatch.setattr("flask_secure_ml.deploy.gunicorn_environment.find_spec", lambda name: None)
    assert found()["worker_class"] == "gthread"


def test_the_page_has_every_variable() -> None:
    """docs/howto/serve.rst has a row for each, with its default and meaning."""
    rows = re.findall(
        r"   \* - ``SECURE_ML_SERVE_(\w+)``\n     - (.*)\n     - ((?:.*\n)(?:       .*\n)*)", PAGE.read_text()
    )
    documented = {name: (default.strip("`"), " ".join(text.split())) for name, default, text in rows}
    assert documented == {each.name: (each.default or "-", each.help) for each in VARIABLES}
