"""The example app: its three endpoints and their access rules."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_app.app import create_app, secure_ml
from example_app.model import ModelError, save
from example_app.training import split, train
from flask_secure_ml.authentication.api_keys.file_store import FileKeyStore
from flask_secure_ml.authentication.api_keys.lifecycle import issue_key
from flask_secure_ml.secrets import Secret, SecretRing
from support import RANDOM_SECRET

BASE = "https://localhost"
KeyFactory = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.npz"
    save(train(), path)
    return path


@pytest.fixture
def state(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "pepper").write_text(RANDOM_SECRET)
    monkeypatch.setenv("FLASK_MODEL_FILE", str(tmp_path / "model.npz"))
    monkeypatch.setenv("FLASK_SECURE_ML_API_KEYS", str(tmp_path / "keys.json"))
    monkeypatch.setenv("FLASK_SECURE_ML_API_KEY_PEPPER", f"file:{tmp_path / 'pepper'}")
    monkeypatch.setenv("FLASK_SECURE_ML_REQUEST_LOG", "off")
    return tmp_path


@pytest.fixture
def app(state: Path) -> Flask:
    return create_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def key(state: Path) -> KeyFactory:
    def make(*scopes: str) -> dict[str, str]:
        store, pepper = FileKeyStore(state / "keys.json"), SecretRing(Secret(f"file:{state / 'pepper'}"))
        return {"X-API-Key": issue_key(store, pepper, client="test", scopes=scopes, now=time.time())[0]}

    return make


def test_predicts_real_digits(client: FlaskClient, key: KeyFactory) -> None:
    """Images that training did not see are responded to with their digits and ten probabilities each."""
    _, images, _, digits = split()
    response = client.post(
        "/v1/predict", base_url=BASE, headers=key("predict"), json={"instances": images[:100].tolist()}
    )
    assert response.status_code == 200
    assert response.json is not None
    assert np.mean(np.array(response.json["predictions"]) == digits[:100]) > 0.9
    probabilities = np.array(response.json["probabilities"])
    assert probabilities.shape == (100, 10)
    assert np.array_equal(probabilities, probabilities.round(4))


def test_prediction_needs_a_key(client: FlaskClient) -> None:
    """Without a credential there is no prediction."""
    assert client.post("/v1/predict", base_url=BASE, json={"instances": [[0] * 64]}).status_code == 401


def test_prediction_needs_its_scope(client: FlaskClient, key: KeyFactory) -> None:
    """A key without the scope predict is rejected."""
    response = client.post("/v1/predict", base_url=BASE, headers=key("metrics"), json={"instances": [[0] * 64]})
    assert response.status_code == 403


def test_options_needs_a_key_and_no_images(client: FlaskClient, key: KeyFactory) -> None:
    """A caller that may predict may request OPTIONS; Flask responds without the model."""
    assert client.options("/v1/predict", base_url=BASE).status_code == 401
    response = client.options("/v1/predict", base_url=BASE, headers=key("predict"))
    assert (response.status_code, response.allow) == (200, {"OPTIONS", "POST"})


def test_prediction_needs_tls(client: FlaskClient, key: KeyFactory) -> None:
    """Clear text is rejected, not redirected."""
    response = client.post("/v1/predict", headers=key("predict"), json={"instances": [[0] * 64]})
    assert response.status_code == 403
    assert response.json is not None
    assert response.json["code"] == "tls_required"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"instances": [[0] * 63]}, id="too-few-pixels"),
        pytest.param({"instances": [[17] + [0] * 63]}, id="too-dark"),
        pytest.param({"instances": [["0"] * 64]}, id="texts"),
        pytest.param({"instances": [[0] * 64] * 4097}, id="too-many"),
        pytest.param({"instances": [[0] * 64], "debug": True}, id="unknown-member"),
        pytest.param({}, id="empty"),
    ],
)
def test_wrong_images(client: FlaskClient, key: KeyFactory, body: object) -> None:
    """A body that is not a list of images gets 422."""
    assert client.post("/v1/predict", base_url=BASE, headers=key("predict"), json=body).status_code == 422


def test_model_card(client: FlaskClient, key: KeyFactory) -> None:
    """Any caller with a key can ask which model responds."""
    response = client.get("/v1/model", base_url=BASE, headers=key())
    assert response.status_code == 200
    assert response.json is not None
    assert response.json["classes"] == list(range(10))
    assert response.json["accuracy"] > 0.93


def test_model_card_needs_a_key(client: FlaskClient) -> None:
    """The model card is not for the public."""
    assert client.get("/v1/model", base_url=BASE).status_code == 401


def test_health_is_public(client: FlaskClient) -> None:
    """A load balancer needs no key."""
    response = client.get("/healthz", base_url=BASE)
    assert (response.status_code, response.json) == (200, {"status": "ok"})


def test_every_policy_has_a_route(app: Flask) -> None:
    """The check that the WSGI module makes at start passes."""
    secure_ml.check(app)


def test_changed_model_stops_the_start(state: Path) -> None:
    """An app whose model was changed does not start."""
    path = state / "model.npz"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="not the trained model"):
        create_app()
