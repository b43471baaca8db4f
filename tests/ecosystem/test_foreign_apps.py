"""Apps of others, protected by the files of docs/howto/foreign_apps.rst, under gunicorn."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import make_certificate
from doc_blocks import HOWTO, write_file
from plain_http import ask
from servers import Served, accepts, free_port, gunicorn
from stored_keys import key_in_file
from support import RANDOM_SECRET

APPS = Path(__file__).parent / "apps"
PAGE = HOWTO / "foreign_apps.rst"
TASKS = {"tasks": [{"id": 1, "data": {"text": "a sentence of more than twenty characters"}}], "project": "1.1"}


def environ_of(folder: Path, **more: str) -> dict[str, str]:
    settings = {
        "PEPPER": RANDOM_SECRET,
        "FLASK_SECURE_ML_API_KEYS": str(folder / "keys.json"),
        "FLASK_SECURE_ML_API_KEY_PEPPER": "env:PEPPER",
    }
    return os.environ | settings | more


def key_of(folder: Path, *scopes: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEPPER", RANDOM_SECRET)
        return key_in_file(str(folder / "keys.json"), scopes=scopes)


def options(folder: Path) -> tuple[str, ...]:
    return ("--threads", "4", "--pythonpath", f"{folder},{APPS}")


# --- Label Studio -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path_factory.mktemp("label_studio")
    write_file(PAGE, "secured_label_studio.py", folder)
    certificate = make_certificate(folder)
    with gunicorn(folder, certificate, environ_of(folder), *options(folder), app="secured_label_studio:app") as served:
        yield served, folder


def as_label_studio(served: Served, path: str, body: Any, password: str | None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if password is not None:
        headers["Authorization"] = "Basic " + b64encode(f"studio:{password}".encode()).decode()
    status, _, received = served.call("POST", path, json.dumps(body), headers)
    return status, json.loads(received)


def test_a_project_of_label_studio(label_studio: tuple[Served, Path]) -> None:
    """It connects, sets up, predicts and trains with one password."""
    served, folder = label_studio
    key = key_of(folder, "predict", "train")
    assert served.call("GET", "/health")[0] == 200
    assert as_label_studio(served, "/setup", {"project": "1.1", "schema": "<View/>"}, key) == (
        200,
        {"model_version": "1"},
    )
    status, predicted = as_label_studio(served, "/predict", TASKS, key)
    assert (status, predicted["results"][0]["result"][0]["value"]) == (200, {"choices": ["long"]})
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
    trained = {"result": {"trained": "ANNOTATION_CREATED"}, "status": "ok"}
    assert as_label_studio(served, "/webhook", event, key) == (201, trained)


def test_a_labelling_key_never_trains(label_studio: tuple[Served, Path]) -> None:
    """Without the scope ``train``, predictions work, and webhooks are a 403."""
    served, folder = label_studio
    key = key_of(folder, "predict")
    assert as_label_studio(served, "/predict", TASKS, key)[0] == 200
    assert as_label_studio(served, "/webhook", {"action": "START_TRAINING"}, key)[0] == 403


@pytest.mark.parametrize("password", [None, "admin", "sml_" + "0" * 40])
@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook", "/nowhere"])
def test_strangers_of_label_studio(label_studio: tuple[Served, Path], path: str, password: str | None) -> None:
    """They get 401, with any password."""
    status, problem = as_label_studio(label_studio[0], path, TASKS, password)
    assert (status, problem["code"]) == (401, "not_authenticated")


def test_all_else_of_label_studio(label_studio: tuple[Served, Path]) -> None:
    """Routes without a policy require a credential."""
    assert label_studio[0].call("GET", "/metrics")[0] == 401


# --- SageMaker --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("sagemaker")
    for file in ("schemas.py", "secured_predictor.py"):
        write_file(PAGE, file, folder)
    with gunicorn(folder, None, dict(os.environ), *options(folder), app="secured_predictor:app") as served:
        yield served


def test_the_probe_of_the_platform(container: Served) -> None:
    """It is answered in clear text."""
    answer = ask(container.port, "GET", "/ping")
    assert (answer.status, answer.body) == (200, b"\n")


def test_invocations(container: Served) -> None:
    """Rows of JSON and of CSV are predicted in their own format."""
    answer = ask(container.port, "POST", "/invocations", {"instances": [[1, 2, 3, 4]]})
    assert (answer.status, answer.json) == (200, {"predictions": [10]})
    csv = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Custom-Attributes": "trace=7"}
    answer = ask(container.port, "POST", "/invocations", b"1,2,3,4\n5,6,7,8\n", csv)
    assert (answer.status, answer.body) == (200, b"10.0\n26.0\n")


INVALID: dict[str, tuple[bytes, str, int, str]] = {
    "a text": (b'{"instances": [["x", 2, 3, 4]]}', "application/json", 422, "validation_failed"),
    "out of range": (b"1,2,3,4000\n", "text/csv", 422, "validation_failed"),
    "three columns": (b"1,2,3\n", "text/csv", 422, "validation_failed"),
    "a header": (b"a,b,c,d\n1,2,3,4\n", "text/csv", 400, "malformed_request"),
    "no JSON": (b'{"instances": [[1, 2', "application/json", 400, "malformed_request"),
    "a pickle": (b"\x80\x04K\x01.", "application/x-pickle", 415, "unsupported_media_type"),
    "too large": (b"1,2,3,4\n" * 800_000, "text/csv", 413, "payload_too_large"),
}


@pytest.mark.parametrize(("body", "kind", "status", "code"), INVALID.values(), ids=INVALID)
def test_invalid_invocations(container: Served, body: bytes, kind: str, status: int, code: str) -> None:
    """They are rejected before the model sees them, with a problem document."""
    answer = ask(container.port, "POST", "/invocations", body, {"Content-Type": kind})
    assert (answer.status, answer.json["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/execution-parameters"), ("POST", "/ping"), ("GET", "/models"), ("GET", "/")]
)
def test_all_else_in_the_container(container: Served, method: str, path: str) -> None:
    """It is closed, to clear text first of all."""
    answer = ask(container.port, method, path)
    assert (answer.status, answer.json["code"]) == (403, "tls_required")


# --- servers that start at import, and factories ----------------------------------------------------------------------

RUNS_AT_IMPORT = """
from flask import Flask

app = Flask(__name__)

@app.get("/model")
def model():
    return "digits"

app.run(port={port}, debug=True)
"""
SCRIPT = """
import argparse
from flask import Flask

app = Flask(__name__)

@app.get("/model")
def model():
    return app.config["MODEL"]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    app.config["MODEL"] = parser.parse_args().model
    app.run(port={port})
"""
FACTORY = """
from flask import Flask

def create_app(name, *, classes):
    app = Flask(name)
    app.add_url_rule("/model", "model", lambda: name)
    return app
"""
STARTS = {
    "run at import": ("wsgi", "app.py", RUNS_AT_IMPORT),
    "script": ("wsgi_script", "script.py", SCRIPT),
    "factory": ("wsgi_factory", "their_factory.py", FACTORY),
}


@pytest.mark.parametrize(("module", "file", "source"), STARTS.values(), ids=STARTS)
def test_how_apps_start(tmp_path: Path, module: str, file: str, source: str) -> None:
    """Gunicorn serves the protected app, and no other port is open."""
    port = free_port()
    (tmp_path / file).write_text(source.replace("{port}", str(port)), encoding="utf-8")
    write_file(PAGE, f"{module}.py", tmp_path)
    key = key_of(tmp_path, "predict")
    certificate = make_certificate(tmp_path)
    place = ("--chdir", str(tmp_path))
    with gunicorn(tmp_path, certificate, environ_of(tmp_path), *place, app=f"{module}:app") as served:
        assert served.call("GET", "/model")[0] == 401
        status, _, body = served.call("GET", "/model", headers={"X-API-Key": key})
        assert (status, body) == (200, b"digits")
        assert not accepts(port)
