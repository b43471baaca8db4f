"""The tracking server of MLflow under a dozen policies, and its own client with an access token."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time

import pytest
from joserfc.jwk import Key
from mlflow import MlflowClient
from mlflow.exceptions import RestException

from certificates import make_certificate
from doc_blocks import HOWTO, write_file
from flask_secure_ml.testing import make_key_set, make_signing_key, make_token
from servers import Served, gunicorn

ISSUER, AUDIENCE = "https://as.example", "https://mlflow.example"
Login = Callable[..., MlflowClient]


@pytest.fixture(scope="module")
def signing_key() -> Key:
    return make_signing_key("ES256")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, signing_key: Key) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("mlflow")
    issuer = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"]}
    environ = os.environ | {
        # What the command "mlflow server" sets.
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "FLASK_SECURE_ML_TOKEN_ISSUERS": json.dumps([issuer | {"jwks": json.loads(make_key_set(signing_key))}]),
    }
    # The client keeps its connections open, for which gunicorn would wait.
    options = ("--threads", "4", "--preload", "--graceful-timeout", "1", "--pythonpath", str(folder))
    write_file(HOWTO / "foreign_apps.rst", "secured_mlflow.py", folder)
    certificate = make_certificate(folder)
    with gunicorn(folder, certificate, environ, *options, app="secured_mlflow:app") as server:
        yield server


@pytest.fixture
def login(served: Served, signing_key: Key, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Set the environment of a user, and return the client."""

    def client(*scopes: str) -> MlflowClient:
        token = make_token(signing_key, issuer=ISSUER, audience=AUDIENCE, now=time(), scope=" ".join(scopes))
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        return MlflowClient()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://localhost:{served.port}")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(served.trusted))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return client


def test_a_run(login: Login, tmp_path: Path) -> None:
    """An experiment, a run, its parameters, metrics and artifacts are written and read."""
    client = login("read", "write")
    experiment = client.create_experiment("digits")
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "layers", 3)
    client.log_metric(run, "accuracy", 0.97)
    client.log_text(run, '{"loss": NaN', "notes.json")
    large = tmp_path / "weights.bin"
    large.write_bytes(bytes(5_000_000))
    client.log_artifact(run, str(large))
    data = client.get_run(run).data
    assert (data.params, data.metrics) == ({"layers": "3"}, {"accuracy": 0.97})
    assert [each.info.run_id for each in client.search_runs([experiment])] == [run]
    assert {each.path for each in client.list_artifacts(run)} == {"notes.json", "weights.bin"}
    assert Path(client.download_artifacts(run, "weights.bin", str(tmp_path))).stat().st_size == 5_000_000


def test_a_reader(login: Login) -> None:
    """It searches, and neither writes nor deletes."""
    client = login("read")
    assert client.search_experiments()
    with pytest.raises(RestException, match="insufficient_scope") as raised:
        client.create_experiment("mine")
    assert raised.value.json["status"] == 403
    with pytest.raises(RestException, match="insufficient_scope"):
        client.delete_experiment("0")


def test_without_a_token(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client shows the code."""
    client = login("read")
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    with pytest.raises(RestException, match="not_authenticated"):
        client.search_experiments()


def test_errors_of_mlflow(login: Login) -> None:
    """They keep the body that the client reads."""
    with pytest.raises(RestException) as raised:
        login("read").get_run("0" * 32)
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("path", ["/", "/graphql", "/get-artifact", "/ajax-api/2.0/mlflow/runs/get", "/nowhere"])
def test_all_else_is_closed(served: Served, path: str) -> None:
    """The pages, the API of the pages and unknown URLs need a credential; the probe does not."""
    assert served.call("GET", path)[0] == 401
    assert served.call("GET", "/health")[0] == 200
