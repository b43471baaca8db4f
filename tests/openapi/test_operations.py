"""Operations: their names, their words, their limits, and where the app stands."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask
from marshmallow import Schema

from flask_secure_ml import protect
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.openapi import build_document
from support import HTTPS, MakeApp, caller

SHARED = Path(__file__).parents[1] / "shared"
BUILD = """
import json
from flask import Flask
from described_app import PLANS, add_routes
from flask_secure_ml import SecureML
from flask_secure_ml.openapi import build_document
from support import NameAuthenticator

app = Flask("m")
app.config.update(SECURE_ML_PLANS=PLANS, SECURE_ML_WIRE_FORMATS=["json", "oip", "npy", "csv"])
SecureML(app, authenticators=[NameAuthenticator()])
print(json.dumps(build_document(add_routes(app)), allow_nan=False))
"""


class Rows(Schema):
    rows = Tensor((None, 2))


def nothing() -> dict[str, Any]:
    return {}


def takes_rows(payload: Any) -> dict[str, int]:
    return {"count": len(payload["rows"])}


def test_every_process_builds_the_same() -> None:
    """The order does not hang on the seed of the hashes, so a kept copy differs only where the API does."""

    def built(seed: str) -> bytes:
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": f"{SHARED}:{os.environ.get('PYTHONPATH', '')}",
        }
        return subprocess.run([sys.executable, "-c", BUILD], env=environment, capture_output=True, check=True).stdout

    assert len({built(seed) for seed in ("1", "2", "3")}) == 1


def test_where_the_app_stands(protected: MakeApp) -> None:
    """The address that clients know is the server; without it none is reported, and none is guessed."""
    assert build_document(protected(RESOURCE_URI="https://a.example/v1/"))["servers"] == [
        {"url": "https://a.example/v1"}
    ]
    assert "servers" not in build_document(protected())


@pytest.mark.parametrize(
    ("terms", "settings", "cap"),
    [
        pytest.param({}, {}, 900, id="settings"),
        pytest.param({"caps": {"max_body_bytes": 300}}, {}, 300, id="route"),
        pytest.param({"caps": {"max_body_bytes": 0}}, {}, 0, id="nothing"),
        pytest.param({"caps": {"max_body_bytes": 300}}, {"MAX_CONTENT_LENGTH": 100}, 100, id="app"),
        pytest.param({"caps": {"max_body_bytes": 50}}, {"MAX_CONTENT_LENGTH": 100}, 50, id="route before app"),
    ],
)
def test_bytes_of_a_body(protected: MakeApp, terms: dict[str, Any], settings: dict[str, int], cap: int) -> None:
    """The described limit is enforced: a body of this size is accepted, and one byte more is a 413."""
    app = protected(MAX_BODY_BYTES=900)
    app.config.update(settings)
    app.add_url_rule("/x", "x", protect(body=Rows, **terms)(takes_rows), methods=["POST"])
    assert build_document(app)["paths"]["/x"]["post"]["x-max-bytes"] == cap

    def status(size: int) -> int:
        body = b'{"rows": [[1, 2]]}'.ljust(size)[:size]
        options = {"data": body, "content_type": "application/json", "headers": caller("ada")}
        return app.test_client().post("/x", base_url=HTTPS, **options).status_code

    assert (status(cap) == 413, status(cap + 1) == 413) == (False, True)


def test_caps_of_a_route(protected: MakeApp) -> None:
    """Each cap is the route's own where it has one, and otherwise that of the settings; none without a body."""
    app = protected(MAX_JSON_DEPTH=7)
    app.add_url_rule("/x", "x", protect(body=Rows, caps={"max_elements": 3})(takes_rows), methods=["POST"])
    app.add_url_rule("/y", "y", nothing)
    paths = build_document(app)["paths"]
    caps = paths["/x"]["post"]["x-caps"]
    assert (caps["max_elements"], caps["max_json_depth"]) == (3, 7)
    assert not {"x-caps", "x-max-bytes"} & paths["/y"]["get"].keys()
    post = partial(app.test_client().post, "/x", base_url=HTTPS, headers=caller("ada"))
    assert post(json={"rows": [[1, 2]]}).status_code == 200
    assert post(json={"rows": [[1, 2], [3, 4]]}).status_code == 413


def test_operation_ids(protected: MakeApp) -> None:
    """Each is the name of the endpoint, with more only where that is not enough; other endpoints change none."""

    def names(app: Flask) -> dict[str, str]:
        paths = build_document(app)["paths"]
        return {
            f"{method} {path}": each["operationId"] for path, item in paths.items() for method, each in item.items()
        }

    app = protected()
    api = Blueprint("api", __name__, url_prefix="/api")
    api.add_url_rule("/one", "one", nothing)
    app.register_blueprint(api)
    app.add_url_rule("/two", "two", nothing, methods=["GET", "POST"])
    app.add_url_rule("/two/<int:number>", "two")
    before = names(app)
    assert before["get /api/one"] == "api.one"
    assert len(set(before.values())) == len(before) == 4
    app.add_url_rule("/a/new/one", "new", nothing)
    assert names(app).items() >= before.items()


class Answering:
    """Response by an object."""

    def __call__(self) -> dict[str, Any]:
        return {}


def response(number: int) -> dict[str, Any]:
    """Return a number.

    More of it.

    :param number: not for callers.
    """
    return {"number": number}


def test_words_of_odd_views(protected: MakeApp) -> None:
    """A view that is not a function has the docstring of its source, never one of Python itself."""
    app = protected()
    app.add_url_rule("/object", "object", Answering())
    app.add_url_rule("/partial", "partial", partial(response, 1))
    app.add_url_rule("/silent", "silent", nothing)
    paths = build_document(app)["paths"]
    assert paths["/object"]["get"]["summary"] == "Response by an object"
    assert (paths["/partial"]["get"]["summary"], paths["/partial"]["get"]["description"]) == (
        "Return a number",
        "More of it.",
    )
    assert not {"summary", "description"} & paths["/silent"]["get"].keys()


def test_names_of_hosts_stay_out() -> None:
    """Of an app for several hosts, the addresses are reported and not which host has them."""
    from flask_secure_ml import SecureML

    app = Flask("hosts", host_matching=True, static_host="static.corp.example")
    app.config["SECURE_ML_REQUEST_LOG"] = "off"
    SecureML(app)
    app.add_url_rule("/x", "x", nothing, host="inside.corp.example")
    document = build_document(app)
    assert list(document["paths"]) == ["/x"]
    assert "corp.example" not in str(document)
