"""Every wire format through a real app: each case in ``tests/corpus`` gets its listed status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from marshmallow import EXCLUDE, Schema, fields

from bodies import CAPS, FORMATS, JSON, a_guard, a_request, an_exchange, loaded
from flask_secure_ml import SecureML, protect, public
from flask_secure_ml.errors import ConfigError, UnsupportedMediaType
from flask_secure_ml.exchange import current_exchange
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.inputs.formats import build_formats
from support import HTTPS, MakeApp, NameAuthenticator, caller

CORPUS = Path(__file__).parents[2] / "corpus"
SETTINGS = {
    "MAX_BODY_BYTES": CAPS.max_bytes,
    "MAX_JSON_DEPTH": CAPS.max_depth,
    "MAX_JSON_MEMBERS": CAPS.max_members,
    "MAX_STRING_LENGTH": CAPS.max_string,
    "MAX_ELEMENTS": CAPS.max_elements,
    "MAX_DECODED_BYTES": CAPS.max_decoded,
}


class Predict(Schema):
    instances = Tensor((None, 2))


class Two(Schema):
    a = Tensor((None,))
    b = Tensor((None,))


def npy_file(case: Mapping[str, Any]) -> bytes:
    """Return the file that a case describes: its parts, or all its bytes."""
    if "raw" in case:
        return bytes.fromhex(case["raw"])
    major, minor = case.get("version", (1, 0))
    header: bytes = case["header"].encode("latin-1") + b" " * case.get("padding", 3) + case.get("end", "\n").encode()
    length = int(case.get("length", len(header))).to_bytes(2 if major < 2 else 4, "little")
    return b"\x93NUMPY" + bytes([major, minor]) + length + header + bytes.fromhex(case["data"])


def oip_request(case: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    text = case["text"].encode() if "text" in case else json.dumps(case["document"]).encode()
    if "binary" not in case:
        return text, {"Content-Type": case.get("media_type", JSON)}
    headers = {"Inference-Header-Content-Length": case.get("header_length", str(len(text)))}
    media_type = case.get("media_type", "application/octet-stream")
    return text + bytes.fromhex(case["binary"]), headers | ({"Content-Type": media_type} if media_type else {})


def request_of(name: str, case: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a case."""
    if name == "npy":
        return npy_file(case), {"Content-Type": "application/x-npy"}
    if name == "msgpack":
        return bytes.fromhex(case["hex"]), {"Content-Type": "application/msgpack"}
    if name == "csv":
        return case["text"].encode(), {"Content-Type": case.get("media_type", "text/csv")}
    return oip_request(case)


def corpus() -> Iterator[Any]:
    for file in sorted(CORPUS.glob("*/cases.json")):
        if file.parent.name in FORMATS:
            for case in json.loads(file.read_text(encoding="utf-8")):
                yield pytest.param(file.parent.name, case, id=f"{file.parent.name}-{case['id']}")


CASES = list(corpus())


@pytest.fixture(scope="module")
def clients() -> dict[str, FlaskClient]:
    """A client for each format, of an app that takes this format only."""
    return {name: _client(name) for name in FORMATS}


def _client(name: str) -> FlaskClient:
    app = Flask(name)
    # JSON is checked against what is set by default, which its files were written for.
    app.config |= {f"SECURE_ML_{key}": value for key, value in SETTINGS.items() if name != "json"}
    app.config |= {"SECURE_ML_WIRE_FORMATS": [name], "SECURE_ML_REQUEST_LOG": "off"}
    SecureML(app, authenticators=[NameAuthenticator()])

    @app.post("/predict")
    @public
    def predict() -> dict[str, Any]:
        return {}

    @app.post("/checked")
    @protect(body=Predict)
    def checked(payload: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        return {"sum": payload["instances"].sum()}, {"X-Format": current_exchange.format}

    return app.test_client()


def test_the_corpus_has_every_format() -> None:
    """A folder that is not found would be a test that cannot fail."""
    assert {param.values[0] for param in CASES} == set(FORMATS) - {"json"}
    assert len(CASES) > 250


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_body_gets_its_status(clients: dict[str, FlaskClient], name: str, case: dict[str, Any]) -> None:
    """Valid bodies are accepted, invalid ones rejected with the right status, and none causes a server error."""
    body, headers = request_of(name, case)
    response = clients[name].post("/checked", data=body, headers=headers | caller(), base_url=HTTPS)
    assert response.status_code == case["status"], response.json
    if response.status_code == 200:
        assert response.headers["X-Format"] == name
    if "pointer" in case:
        assert case["pointer"] in [error["pointer"] for error in json.loads(response.data)["errors"]]


@pytest.mark.parametrize("status", [200, 400], ids=["accept", "refuse"])
def test_json_gets_its_status(clients: dict[str, FlaskClient], status: int) -> None:
    """JSON that parsers disagree about is accepted or rejected, with a schema or without, and never a fault."""
    files = sorted((CORPUS / "json" / ("accept" if status == 200 else "refuse")).glob("*.json"))
    assert len(files) > 40
    for file in files:
        raw = file.read_bytes()
        # Without a schema there need not be a body.
        for path, expected in (
            ("/predict", {status} if raw else {200}),
            ("/checked", {400} if status == 400 else {422, 200}),
        ):
            response = clients["json"].post(path, data=raw, content_type=JSON, headers=caller(), base_url=HTTPS)
            assert response.status_code in expected, (file.name, path)


@pytest.mark.parametrize(
    ("formats", "schema", "accepted"),
    [
        (["json"], Predict, "application/json"),
        (["npy"], Predict, "application/x-npy"),
        (FORMATS, Predict, "application/json, application/x-npy, application/vnd.msgpack, text/csv"),
        (FORMATS, Two, "application/json, application/vnd.msgpack"),
        (FORMATS, Predict(many=True), "application/json, application/vnd.msgpack"),
        (["oip"], Predict, "application/json"),
        (["npy", "csv"], Two, None),
    ],
    ids=["json", "npy", "all", "two tensors", "many", "oip", "nothing fits"],
)
def test_415_lists_what_is_accepted(formats: list[str], schema: Any, accepted: str | None) -> None:
    """The media types in Accept are those that the schema of the route can be filled from."""
    with pytest.raises(UnsupportedMediaType) as caught:
        a_guard(formats).check(a_request(b"x", "image/png"), an_exchange(body=schema))
    assert dict(caught.value.extra_headers).get("Accept") == accepted


@pytest.mark.parametrize(
    "media_type", ["application/x-npy", "text/csv", "application/msgpack", "application/octet-stream"]
)
def test_formats_are_off_unless_they_are_on(media_type: str) -> None:
    """By default a route takes JSON only."""
    with pytest.raises(UnsupportedMediaType):
        a_guard().check(a_request(b"1,2\n", media_type), an_exchange(body=Predict))


def test_a_format_is_named_on_the_exchange() -> None:
    """The response can be written in the format of the question."""
    guard = a_guard(FORMATS)
    assert loaded(guard, Predict, b'{"instances": [[1, 2]]}').format == "json"
    assert loaded(guard, Predict, b"1,2", "text/csv").format == "csv"


class Renamed(Schema):
    class Meta:
        unknown = EXCLUDE

    rows = Tensor((None, 2), "float64", data_key="table", attribute="matrix")
    temperature = fields.Float(load_default=1.0)


def test_the_tensor_is_found_by_its_name_in_a_body() -> None:
    """Other fields keep their defaults, and ``data_key`` and ``attribute`` keep their meaning."""
    exchange = loaded(a_guard(FORMATS), Renamed, b"1,2\n3,4.5\n", "text/csv")
    assert exchange.payload["temperature"] == 1.0
    assert exchange.payload["matrix"].tolist() == [[1, 2], [3, 4.5]]


def test_a_missing_package_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that cannot be decoded is a fault of the setup, not of the first request."""
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ConfigError, match=r"SECURE_ML_WIRE_FORMATS: msgpack.*\[msgpack\]"):
        build_formats(["msgpack"], CAPS)


def test_settings_reach_the_guard(protected: MakeApp) -> None:
    """The configured limits, formats and encodings are enforced."""
    app = Flask("model_app")

    @app.post("/checked")
    @protect(scopes=["predict"], body=Predict)
    def checked(payload: dict[str, Any]) -> dict[str, Any]:
        return {"array": payload["instances"]}

    protected(app, WIRE_FORMATS=["json", "npy"], MAX_ELEMENTS=4)
    client = app.test_client()
    headers = caller("ada", "predict")
    response = client.post("/checked", json={"instances": [[1, 2], [3, 4]]}, headers=headers, base_url=HTTPS)
    assert response.json == {"array": [[1, 2], [3, 4]]}
    response = client.post("/checked", json={"instances": [[1, 2], [3, 4], [5, 6]]}, headers=headers, base_url=HTTPS)
    assert (response.status_code, json.loads(response.data)["code"]) == (413, "payload_too_large")


def test_nothing_of_a_body_is_echoed(clients: dict[str, FlaskClient]) -> None:
    """No response to a rejected body repeats any of it."""
    secret = "s3cr3t-value"
    for name, body, media_type in (
        ("json", f'{{"instances": ["{secret}"]}}', JSON),
        ("json", f'{{"instances": {secret}}}', JSON),
        ("csv", f"{secret},1\n", "text/csv"),
        ("npy", f"\x93NUMPY{secret}", "application/x-npy"),
        ("msgpack", f"\xa1\xff{secret}", "application/msgpack"),
        (
            "oip",
            json.dumps({"inputs": [{"name": "instances", "shape": [1], "datatype": secret, "data": [secret]}]}),
            JSON,
        ),
    ):
        response = clients[name].post(
            "/checked", data=body.encode("latin-1"), content_type=media_type, headers=caller(), base_url=HTTPS
        )
        assert response.status_code in {400, 422}
        assert secret not in response.get_data(as_text=True)


def test_a_binary_array_is_checked_as_a_list_is() -> None:
    """One schema serves all formats: values rejected in JSON are rejected in every format."""

    class Bounded(Schema):
        instances = Tensor((None, 2), minimum=0, maximum=1, max_items=2)

    guard = a_guard(FORMATS)
    rows = np.array([[0.5, 0.25], [0.75, 1.0]], "f4")
    for bad, pointer in ((rows + 2, "/instances/0/0"), (np.vstack([rows, rows]), "/instances")):
        for body, media_type in (
            (json.dumps({"instances": bad.tolist()}).encode(), JSON),
            ("\n".join(",".join(map(str, row)) for row in bad.tolist()).encode(), "text/csv"),
        ):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - its kind is what is looked at
                loaded(guard, Bounded, body, media_type)
            assert caught.value.members["errors"][0]["pointer"] == pointer  # type: ignore[attr-defined]
