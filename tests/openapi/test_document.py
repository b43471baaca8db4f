"""The OpenAPI document describes what is enforced: each statement is checked against real responses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema
from openapi_spec_validator import OpenAPIV31SpecValidator

from described_app import HIDDEN, add_routes
from flask_secure_ml import ConfigError, SecureML, protect
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.openapi import build_document
from support import HTTPS, MakeApp, caller

ARGUMENTS = {
    "number": "7",
    "name": "a/b",
    "way": "up",
    "id": "00000000-0000-4000-8000-000000000000",
    "one": "x",
    "two": "2",
}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def address(path: str) -> str:
    for name, value in ARGUMENTS.items():
        path = path.replace(f"{{{name}}}", value)
    return path


def call(app: Flask, path: str, method: str = "POST", **options: Any) -> Any:
    return app.test_client().open(address(path), method=method, base_url=HTTPS, **options)


def example_of(operation: dict[str, Any], media_type: str) -> Any:
    return next(iter(operation["requestBody"]["content"][media_type]["examples"].values()))["value"]


def test_it_is_valid_and_always_the_same(app: Flask, document: dict[str, Any]) -> None:
    """It is valid OpenAPI 3.1 and strict JSON, and two builds are equal byte for byte."""
    OpenAPIV31SpecValidator(document).validate()
    text = json.dumps(document, allow_nan=False)
    assert json.dumps(build_document(app), allow_nan=False) == text


def test_every_route_is_there_once(document: dict[str, Any]) -> None:
    """All routes of the app, none of this extension; routes that OpenAPI cannot distinguish are listed."""
    found = {(path, method) for path, method, _ in operations(document)}
    assert ("/v1/predict", "POST") in found
    assert ("/jobs/{number}", "DELETE") in found
    assert not [path for path, _ in found if path.startswith(("/static", "/docs", "/openapi", "/.well-known"))]
    assert len([path for path, _ in found if path.startswith("/same/")]) == 1
    assert [each[:9] for each in document["x-not-described"]] == ["GET /same"]
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


def test_security_is_what_is_enforced(app: Flask, document: dict[str, Any]) -> None:
    """A route whose security is empty serves anyone; any other one is a 401 without a credential."""
    for path, method, operation in operations(document):
        status = call(app, path, method).status_code
        assert (status == 401) == bool(operation["security"]), path
        assert ("401" in operation["responses"]) == bool(operation["security"]), path


def test_scopes_are_what_is_enforced(app: Flask, document: dict[str, Any]) -> None:
    """With the scopes of one alternative a caller gets past 403; without them it does not."""
    tried = 0
    for path, method, operation in operations(document):
        for way in operation["security"]:
            scopes = [scope for found in way.values() for scope in found]
            status = call(app, path, method, headers=caller("ada", *scopes)).status_code
            assert status != 403 or operation.get("x-access"), path
            if scopes:
                tried += 1
                assert call(app, path, method, headers=caller("ada")).status_code == 403
    assert tried == 3


REJECTED = [
    pytest.param("/v1/predict", {"data": b"{"}, 400, id="malformed"),
    pytest.param("/v1/predict", {"headers": {"X-Test-Caller": ""}}, 401, id="no credential"),
    pytest.param("/v1/predict", {"headers": caller("ada")}, 403, id="no scope"),
    pytest.param("/v1/predict", {"base_url": "http://localhost"}, 403, id="clear text"),
    pytest.param("/v1/predict", {"method": "PUT"}, 405, id="another method"),
    pytest.param("/v1/predict", {"headers": caller("ada", "predict") | {"Accept": "image/png"}}, 406, id="Accept"),
    pytest.param("/v1/predict", {"data": b" " * 5001}, 413, id="over its own cap"),
    pytest.param("/v1/predict", {"content_type": "text/plain"}, 415, id="media type"),
    pytest.param("/v1/predict", {"json": {"instances": []}}, 422, id="schema"),
    pytest.param("/jobs/{number}", {"method": "POST", "headers": caller("ada")}, 405, id="method of a class"),
]


@pytest.mark.parametrize(("path", "options", "status"), REJECTED)
def test_rejections_are_described(
    app: Flask, document: dict[str, Any], path: str, options: dict[str, Any], status: int
) -> None:
    """The code of a real error response is among the examples of its status, and its headers are named."""
    sent: dict[str, Any] = {"method": "POST", "base_url": HTTPS, "headers": caller("ada", "predict")}
    sent |= {} if "data" in options or "content_type" in options else {"json": {"instances": [[0, 0, 0, 0]]}}
    sent |= {"content_type": "application/json"} if "data" in options else {}
    response = app.test_client().open(address(path), **sent | options)
    assert response.status_code == status
    operation = next(iter(document["paths"][path].values()))
    reference = operation["responses"][str(status)]["$ref"].rpartition("/")[2]
    described = document["components"]["responses"][reference]
    examples = described["content"]["application/problem+json"]["examples"]
    example = examples[response.get_json()["code"]]["value"]
    assert example.keys() == response.get_json().keys()
    assert (example["title"], example["detail"]) == (response.get_json()["title"], response.get_json()["detail"])
    assert all(
        name in described["headers"]
        for name in ("X-Request-ID", "X-Error-Code", "WWW-Authenticate", "Allow")
        if name in response.headers
    )


def test_too_much_is_described(app: Flask, document: dict[str, Any]) -> None:
    """Limits are described in words, and both codes of 429 if a quota is charged."""
    operation = document["paths"]["/v1/predict"]["post"]
    assert operation["x-rate-limits"] == [
        "600 requests per minute for each caller",
        "60 requests per minute for each caller over all routes, in the plan default",
        "10000 rows of instances per day for each caller over all routes, in the plan default",
    ]
    assert operation["responses"]["429"]["$ref"].endswith("429.rate_limited.quota_exceeded")
    assert document["paths"]["/healthz"]["get"]["responses"]["429"]["$ref"].endswith("429.rate_limited")
    assert operation["x-max-bytes"] == 5000
    statuses = [call(app, "/healthz", "GET").status_code for _ in range(61)]
    assert statuses == [200] * 60 + [429]


def test_formats_are_those_that_are_taken(app: Flask, document: dict[str, Any]) -> None:
    """Exactly the media types of a 415 are listed, and every example is accepted."""
    for path, method, operation in operations(document):
        if "requestBody" not in operation:
            continue
        scopes = next(iter(operation["security"][0].values())) if operation["security"] else []
        headers = caller("ada", *scopes)
        rejected = call(app, path, method, headers=headers, content_type="text/x-nothing", data=b"x")
        if rejected.status_code == 403:  # asks for more than the caller of this test has
            continue
        content = operation["requestBody"]["content"]
        assert set(rejected.headers["Accept"].replace(" ", "").split(",")) <= set(content), path
        for media_type in content:
            assert call(app, path, method, headers=headers, content_type=media_type, data=b"x").status_code != 415
        for media_type in {"application/json", "text/csv"} & content.keys():
            if "examples" in content[media_type]:
                example = example_of(operation, media_type)
                body = example if media_type == "text/csv" else json.dumps(example)
                assert call(app, path, method, headers=headers, content_type=media_type, data=body).status_code == 200


def test_names_of_columns(protected: MakeApp) -> None:
    """A table may have a header: of the names that are matched, where the tensor has names."""
    app = protected(WIRE_FORMATS=["csv"])
    for name, features in (("named", ["age", "income"]), ("plain", [])):
        schema = Schema.from_dict({"rows": Tensor((None, 2), features=features)})
        app.add_url_rule(
            f"/{name}", endpoint=name, view_func=protect(body=schema)(lambda payload: ""), methods=["POST"]
        )
    paths = build_document(app)["paths"]
    named, plain = (
        paths[path]["post"]["requestBody"]["content"]["text/csv"]["schema"] for path in ("/named", "/plain")
    )
    assert named["x-features"] == ["age", "income"]
    assert named["description"].endswith("if its first line has names: those of x-features, in any order.")
    assert "x-features" not in plain
    assert plain["description"].endswith("if its first line has names.")


def test_words_come_from_docstrings(document: dict[str, Any]) -> None:
    """The first paragraph is the summary; fields for programmers end it. A method of a class has its class's."""
    predict = document["paths"]["/v1/predict"]["post"]
    assert predict["summary"] == "Tell the species of flowers"
    assert predict["description"] == "One row of ``instances`` for each flower."
    assert document["paths"]["/jobs/{number}"]["get"]["summary"] == "One job"
    assert document["paths"]["/jobs/{number}"]["delete"]["summary"] == "Stop a job"
    assert document["paths"]["/jobs/{number}"]["get"]["tags"] == ["jobs"]
    assert document["components"]["schemas"]["Rows"]["description"] == "Measurements of flowers."


def test_parts_of_addresses(document: dict[str, Any]) -> None:
    """The parameter describes the values that its converter accepts."""

    def schema(path: str) -> dict[str, Any]:
        found: dict[str, Any] = document["paths"][path]["get"]["parameters"][0]["schema"]
        return found

    assert schema("/jobs/{number}") == {"type": "integer", "minimum": 1, "maximum": 99}
    assert schema("/sorted/{way}")["enum"] == ["down", "up"]
    assert schema("/ids/{id}")["format"] == "uuid"


def test_nothing_private_is_told(document: dict[str, Any]) -> None:
    """Other customers, values of claims, hosts of the inside and other plans stay out of it."""
    text = json.dumps(document)
    assert [each for each in HIDDEN if each in text] == []
    assert "needs a certain value of the claim tenant" in text


def test_no_way_in_is_not_open(bare_app: Flask) -> None:
    """Without a configured credential, a protected route still requires one."""
    SecureML(bare_app)
    bare_app.add_url_rule("/closed", view_func=lambda: "x", endpoint="closed")
    assert build_document(bare_app)["paths"]["/closed"]["get"]["security"] == [{"Bearer": []}]


def test_apispec_is_missing(bare_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting without its package is a start-up error with the install command; off needs no package."""
    monkeypatch.setitem(sys.modules, "apispec.ext.marshmallow", None)
    SecureML(Flask("off"))
    bare_app.config["SECURE_ML_OPENAPI"] = "public"
    with pytest.raises(ConfigError, match=r"flask-secure-ml\[openapi\]"):
        SecureML(bare_app)


def test_schemas_of_one_name(protected: MakeApp) -> None:
    """Two classes of one name are two components, and neither takes the place of the other."""
    schemas = build_document(add_routes(protected()))["components"]["schemas"]
    assert "instances" in schemas["Rows"]["properties"]
    assert "names" in schemas["Rows2"]["properties"]
    assert schemas["Node"]["properties"]["children"]["items"]["$ref"].endswith("/Node")


def test_it_is_served_as_it_is_built(app: Flask) -> None:
    """The route serves the output of the command; score options do not change its numbers."""
    served = app.test_client().get("/openapi.json", base_url=HTTPS, headers=caller("ada"))
    assert served.mimetype == "application/json"
    assert served.json == json.loads(json.dumps(build_document(app)))
