from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

import pytest
from flask import Flask, Request, request
from flask.typing import ResponseReturnValue
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError, fields, validates_schema

from bodies import CHUNKED, JSON, TERMINATED, a_chunked_request, a_guard, a_request, an_exchange
from flask_secure_ml import protect, public
from flask_secure_ml.errors import (
    MalformedRequest,
    PayloadTooLarge,
    SecureMLError,
    UnsupportedMediaType,
    ValidationFailed,
)
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.testing import MemorySink
from support import HTTPS, MakeApp, caller

CAP = 1_000
guard = a_guard(max_bytes=CAP, max_depth=5)


class Predict(Schema):
    instances = Tensor(shape=(None, 2), minimum=0, required=True)
    note = fields.String()


@pytest.fixture(params=[a_request, a_chunked_request], ids=["declared", "chunked"])
def make(request: pytest.FixtureRequest) -> Callable[..., Request]:
    """Both ways in which a body comes."""
    found: Callable[..., Request] = request.param
    return found


class Broken:
    """A body that fails after a part was delivered."""

    def __init__(self, error: Exception) -> None:
        self._parts = [b'{"a":']
        self._error = error

    def read(self, _size: int) -> bytes:
        if self._parts:
            return self._parts.pop()
        raise self._error


class Endless:
    """A body without an end, which counts the bytes read."""

    taken = 0

    def read(self, size: int) -> bytes:
        self.taken += size
        return b"1" * size


class Untouchable:
    """A body that must not be read."""

    def read(self, _size: int) -> bytes:
        pytest.fail("the body was read")


HANDSHAKE: dict[str, str | bool] = {"REQUEST_METHOD": "GET", "HTTP_UPGRADE": "websocket", "SERVER_PROTOCOL": "HTTP/1.1"}


@pytest.mark.parametrize("media_type", [None, JSON, "text/plain"])
@pytest.mark.parametrize(
    "environ",
    [
        pytest.param(HANDSHAKE | TERMINATED, id="a handshake"),
        pytest.param(HANDSHAKE | {"wsgi.input_terminated": False}, id="a handshake at gevent's server"),
        pytest.param({"wsgi.input_terminated": False}, id="any request to upgrade there"),
    ],
)
def test_the_connection_is_no_body(media_type: str | None, environ: dict[str, str | bool]) -> None:
    """The input of an upgrade request is the connection, which has no end for the guard and the view."""
    found = a_request(None, media_type, Untouchable(), **environ)
    guard.check(found, an_exchange())
    assert found.get_data() == b""


def test_a_declared_body_beside_an_upgrade() -> None:
    """A body with a length ends as declared; a chunked one is not decoded by any server there."""
    unterminated: dict[str, str | bool] = {"wsgi.input_terminated": False, "HTTP_CONNECTION": "upgrade"}
    found = a_request(None, "text/plain", BytesIO(b"text and frames"), **(unterminated | {"CONTENT_LENGTH": "4"}))
    guard.check(found, an_exchange())
    assert found.get_data() == b"text"
    with pytest.raises(MalformedRequest):
        guard.check(a_chunked_request(b"5", "text/plain", None, **unterminated), an_exchange())


def test_a_schema_fills_the_payload(make: Callable[..., Request]) -> None:
    """The loaded value and the size of the body are on the exchange."""
    body = b'{"instances": [[1, 2.5]]}'
    exchange = an_exchange(body=Predict)
    guard.check(make(body), exchange)
    assert exchange.payload["instances"].tolist() == [[1.0, 2.5]]
    assert exchange.received_bytes == len(body)


def test_the_body_can_be_read_again(make: Callable[..., Request]) -> None:
    """A view of an existing app reads the whole body again, also through another request object."""
    body = b'{"a": [1, 2]}'
    request = make(body)
    guard.check(request, an_exchange())
    assert Request(request.environ).get_data() == body
    request = make(body)
    guard.check(request, an_exchange())
    assert request.get_json() == {"a": [1, 2]}


@pytest.mark.parametrize("media_type", [JSON, "text/plain", "application/octet-stream"])
def test_the_cap_itself_passes_and_one_more_is_rejected(make: Callable[..., Request], media_type: str) -> None:
    """The cap is the largest body that passes, for every media type and both ways of sending."""
    guard.check(make(b'"' + b"a" * (CAP - 2) + b'"', media_type), an_exchange())
    with pytest.raises(PayloadTooLarge):
        guard.check(make(b'"' + b"a" * (CAP - 1) + b'"', media_type), an_exchange())


@pytest.mark.parametrize("length", [str(CAP + 1), "9" * 18, "9" * 5_000])
def test_a_declared_length_over_the_cap_is_rejected_unread(length: str) -> None:
    """A body whose declared length is too large is not read."""
    request = a_request(stream=Untouchable(), CONTENT_LENGTH=length)
    with pytest.raises(PayloadTooLarge):
        guard.check(request, an_exchange())


def test_an_endless_body_is_read_to_the_cap_only() -> None:
    """A chunked body without end costs no more than the limit."""
    stream = Endless()
    with pytest.raises(PayloadTooLarge):
        guard.check(a_chunked_request(stream=stream), an_exchange())
    assert stream.taken == CAP + 1


@pytest.mark.parametrize(
    ("own", "app_wide", "effective"), [(5, None, 5), (2_000, None, 2_000), (0, None, 0), (50, 7, 7)]
)
def test_a_policy_and_the_app_have_caps_of_their_own(own: int, app_wide: int | None, effective: int) -> None:
    """A policy's limit overrides the guard's, smaller or larger; Flask's own setting still applies."""

    class Limited(Request):
        max_content_length = app_wide

    caps: dict[str, Any] = {"caps": {"max_body_bytes": own}}
    guard.check(Limited(a_request(b"1" * effective, "text/plain").environ), an_exchange(**caps))
    with pytest.raises(PayloadTooLarge):
        guard.check(Limited(a_request(b"1" * (effective + 1), "text/plain").environ), an_exchange(**caps))


def test_an_upload_of_known_length_stays_in_its_stream() -> None:
    """A file is not read into memory if it is not parsed here."""
    exchange = an_exchange()
    guard.check(a_request(media_type="image/png", stream=Untouchable(), CONTENT_LENGTH="9"), exchange)
    assert exchange.received_bytes == 9


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "identity, gzip", "made-up"])
def test_content_encodings_are_rejected_unread(encoding: str) -> None:
    """A compressed body is never decompressed; the response lists the accepted encodings."""
    request = a_request(gzip.compress(b"{}"), stream=Untouchable(), HTTP_CONTENT_ENCODING=encoding)
    with pytest.raises(UnsupportedMediaType) as caught:
        guard.check(request, an_exchange())
    assert ("Accept-Encoding", "identity") in caught.value.extra_headers


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_identity_is_no_encoding(encoding: str) -> None:
    """Identity means no encoding."""
    guard.check(a_request(b"{}", HTTP_CONTENT_ENCODING=encoding), an_exchange())


@pytest.mark.parametrize(
    "media_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/ld+json", "a\x00b", ";;="]
)
def test_a_schema_needs_json(media_type: str | None) -> None:
    """On a route with a schema any other media type, or none, is 415 with the accepted ones."""
    with pytest.raises(UnsupportedMediaType) as caught:
        guard.check(a_request(b'{"instances": [[1, 2]]}', media_type), an_exchange(body=Predict))
    assert ("Accept", JSON) in caught.value.extra_headers


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "utf-7", "utf8x"])
@pytest.mark.parametrize("options", [{}, {"body": Predict}], ids=["no schema", "schema"])
def test_json_is_utf8(charset: str, options: dict[str, Any]) -> None:
    """JSON in another charset is rejected, with a schema or without."""
    with pytest.raises(UnsupportedMediaType):
        guard.check(a_request(b'{"instances": [[1, 2]]}', f"{JSON}; charset={charset}"), an_exchange(**options))


@pytest.mark.parametrize("media_type", [JSON, "Application/JSON", f"{JSON}; charset=utf-8", f'{JSON};charset="UTF-8"'])
def test_ways_to_write_the_media_type(media_type: str) -> None:
    """The media type is parsed according to HTTP: any case, with or without the charset."""
    guard.check(a_request(b'{"instances": [[1, 2]]}', media_type), an_exchange(body=Predict))


@pytest.mark.parametrize("media_type", [JSON, "application/vnd.model+json"])
@pytest.mark.parametrize(
    "body", [b"{", b"[NaN]", b'{"a":1,"a":2}', b"[" * 6 + b"]" * 6, b"\xff", b"\xef\xbb\xbf{}", b"[1e999]"]
)
def test_json_is_strict_without_a_schema(make: Callable[..., Request], media_type: str, body: bytes) -> None:
    """The view of an older app never gets JSON that two parsers read differently."""
    with pytest.raises(MalformedRequest) as caught:
        guard.check(make(body, media_type), an_exchange())
    assert caught.value.reason.startswith("the body is not strict JSON: ")


def test_no_body_is_malformed_with_a_schema_and_fine_without(make: Callable[..., Request]) -> None:
    """Many clients send the media type with every GET; only a schema needs a body."""
    guard.check(make(b""), an_exchange())
    with pytest.raises(MalformedRequest):
        guard.check(make(b""), an_exchange(body=Predict))


def test_without_length_and_terminated_stream_there_is_no_body() -> None:
    """A server that neither gives a length nor ends the stream has no body to give (PEP 3333)."""
    exchange = an_exchange()
    guard.check(a_request(stream=Untouchable()), exchange)
    assert exchange.received_bytes == 0


@pytest.mark.parametrize("length", ["-1", "+3", "3.0", "0x3", "abc", "\u0663", " 3", "3,3"])
def test_a_length_that_is_no_number_is_malformed(length: str) -> None:
    """Where a body ends must not be a matter of opinion."""
    with pytest.raises(MalformedRequest):
        guard.check(a_request(b"{} ", CONTENT_LENGTH=length), an_exchange())


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param(CHUNKED, id="beside a length"),
        pytest.param(TERMINATED | {"HTTP_TRANSFER_ENCODING": "gzip, chunked"}, id="two codings"),
        pytest.param({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}, id="not decoded by the server"),
    ],
)
def test_ambiguous_transfer_codings_are_malformed(environ: dict[str, Any]) -> None:
    """A body whose end two readers could see in two positions is rejected (RFC 9112 section 6.3)."""
    with pytest.raises(MalformedRequest):
        guard.check(a_request(b"{}", **environ), an_exchange())


def test_a_body_that_ends_early_is_malformed() -> None:
    """``12`` of ``123`` is valid JSON, but not the body that was sent."""
    with pytest.raises(MalformedRequest, match="400") as caught:
        guard.check(a_request(b"12", JSON, None, **(TERMINATED | {"CONTENT_LENGTH": "3"})), an_exchange())
    assert caught.value.reason == "the body ends after 2 of 3 bytes"


def test_what_follows_the_declared_length_is_not_read() -> None:
    """The next request on the connection is none of ours."""
    request = a_request(b"12", stream=BytesIO(b"12GET / HTTP/1.1"))
    guard.check(request, an_exchange())
    assert request.get_data() == b"12"


@pytest.mark.parametrize("error", [OSError("reset"), ValueError("closed"), TimeoutError(), RuntimeError("bad trailer")])
def test_a_read_that_fails_is_malformed(make: Callable[..., Request], error: Exception) -> None:
    """Lost connections and invalid chunks are client errors, whatever the server raises."""
    with pytest.raises(MalformedRequest, match="400") as caught:
        guard.check(make(b'{"a":1}', stream=Broken(error)), an_exchange())
    assert caught.value.reason == f"the body could not be read: {type(error).__name__}"


def test_a_body_that_somebody_read_before_is_checked_too(make: Callable[..., Request]) -> None:
    """A signal handler that read the data first neither hides it from the check nor loses it for the view."""
    request = make(b'{"a": 1}')
    assert request.get_data() == b'{"a": 1}'
    guard.check(request, an_exchange())
    assert request.get_json() == {"a": 1}
    request = make(b"[NaN]")
    request.get_data()
    with pytest.raises(MalformedRequest):
        guard.check(request, an_exchange())


@pytest.mark.parametrize(
    ("value", "errors"),
    [
        pytest.param({}, [("/instances", "Missing data for required field.")], id="missing"),
        pytest.param({"instances": [[1, -2]]}, [("/instances/0/1", "Must be at least 0.")], id="value"),
        pytest.param({"instances": [[1, 2], [1]]}, [("/instances/1", "Must have 2 items.")], id="row"),
        pytest.param({"instances": [[1, 2]], "a/b~c": 1}, [("/a~1b~0c", "Unknown field.")], id="escaped"),
        pytest.param({"instances": [[1, 2]], "": 1}, [("/", "Unknown field.")], id="empty name"),
        pytest.param({"instances": 0, "note": 0}, [("/instances", "Not a list."), ("/note", "Not a valid string.")]),
        pytest.param([], [("", "Invalid input type.")], id="array"),
        pytest.param("text", [("", "Invalid input type.")], id="text"),
        pytest.param(None, [("", "Invalid input type.")], id="null"),
    ],
)
def test_errors_point_into_the_body(value: Any, errors: list[tuple[str, str]]) -> None:
    """Every error has a JSON pointer (RFC 6901) and a message."""
    with pytest.raises(ValidationFailed) as caught:
        guard.check(a_request(json.dumps(value).encode()), an_exchange(body=Predict))
    found = [(error["pointer"], error["message"]) for error in caught.value.members["errors"]]
    assert sorted(found) == sorted(errors)


def test_errors_are_bounded_and_hold_no_value() -> None:
    """A hostile body cannot make a large response, nor get its values echoed."""
    body = {"instances": [["secret"] * 2] * 15, "n" * 500: "secret"} | {f"unknown{n}": "secret" for n in range(15)}
    big = a_guard(max_bytes=10_000, max_depth=5)
    with pytest.raises(ValidationFailed) as caught:
        big.check(a_request(json.dumps(body).encode()), an_exchange(body=Predict))
    errors = caught.value.members["errors"]
    assert len(errors) == 20
    assert all(len(error["pointer"]) <= 65 for error in errors)
    assert "secret" not in json.dumps(errors) + caught.value.reason
    assert caught.value.reason == "the schema found 20 errors or more"


def test_a_long_name_is_cut() -> None:
    """The name of an unknown field is the client's, so it does not come back whole."""
    body = json.dumps({"instances": [[1, 2]], "n" * 500: 1}).encode()
    with pytest.raises(ValidationFailed) as caught:
        guard.check(a_request(body), an_exchange(body=Predict))
    assert caught.value.members["errors"] == [{"pointer": "/" + "n" * 63 + "…", "message": "Unknown field."}]


class Hooked(Schema):
    kind = fields.String()

    @validates_schema
    def together(self, data: dict[str, Any], **_kwargs: Any) -> None:
        if data["kind"] == "refuse":
            raise ValidationError({"kind": {"part": ["Not together."]}})
        if data["kind"] == "whole":
            raise ValidationError("x" * 500)
        raise KeyError(data["kind"])


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("refuse", {"pointer": "/kind/part", "message": "Not together."}),
        ("whole", {"pointer": "", "message": "x" * 199 + "…"}),
    ],
)
def test_errors_of_a_schema_hook(kind: str, error: dict[str, str]) -> None:
    """A rule of the schema's author gets a response as the fields' own rules are."""
    with pytest.raises(ValidationFailed) as caught:
        guard.check(a_request(json.dumps({"kind": kind}).encode()), an_exchange(body=Hooked))
    assert caught.value.members["errors"] == [error]
    assert caught.value.reason == "the schema found 1 error"


def test_a_fault_in_a_schema_hook_is_not_the_clients() -> None:
    """A bug in the author's code stays a fault of the server."""
    with pytest.raises(KeyError):
        guard.check(a_request(b'{"kind": "bug"}'), an_exchange(body=Hooked))


def test_many_objects() -> None:
    """A schema with ``many`` takes an array, and its errors begin with the index."""
    exchange = an_exchange(body=Predict(many=True))
    guard.check(a_request(b'[{"instances": [[1, 2]]}]'), exchange)
    assert len(exchange.payload) == 1
    with pytest.raises(ValidationFailed) as caught:
        guard.check(a_request(b'[{"instances": [[1, 2]]}, {}]'), an_exchange(body=Predict(many=True)))
    assert [error["pointer"] for error in caught.value.members["errors"]] == ["/1/instances"]


@given(
    body=st.one_of(
        st.binary(max_size=80), st.recursive(st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
    ),
    media_type=st.sampled_from([JSON, f"{JSON}; charset", "text/plain"]) | st.text(st.characters(codec="latin-1")),
    encoding=st.sampled_from(["", "identity", "gzip"]),
    length=st.none() | st.text(max_size=5) | st.integers(0, 100).map(str),
    chunked=st.booleans(),
)
def test_no_input_is_a_fault(body: bytes, media_type: str, encoding: str, length: str | None, chunked: bool) -> None:
    """The guard accepts any request or rejects it with one of its own errors."""
    make = a_chunked_request if chunked else a_request
    own_length = {} if length is None else {"CONTENT_LENGTH": length}
    request = make(body, media_type, None, HTTP_CONTENT_ENCODING=encoding, **own_length)
    status = 200
    try:
        guard.check(request, an_exchange(body=Predict))
    except SecureMLError as error:
        status = error.code or 0
    assert status in {200, 400, 413, 415, 422}


def test_in_an_app_without_schema() -> None:
    """In a real app the guard leaves forms, files and JSON to the view as they were sent."""
    app = Flask(__name__)

    @app.before_request
    def check() -> None:
        guard.check(cast("Any", request)._get_current_object(), an_exchange())

    @app.post("/")
    def view() -> ResponseReturnValue:
        file = request.files.get("file")
        return {"json": request.get_json(silent=True), "form": request.form, "file": file and file.read().decode()}

    client = app.test_client()
    assert client.post("/", json={"a": [1]}).json == {"json": {"a": [1]}, "form": {}, "file": None}
    assert client.post("/", data={"a": "b"}).json == {"json": None, "form": {"a": "b"}, "file": None}
    upload = client.post("/", data={"a": "b", "file": (BytesIO(b"content"), "name")})
    assert upload.json == {"json": None, "form": {"a": "b"}, "file": "content"}


# --- the errors of a malformed body ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "media_type", "body", "message"),
    [
        pytest.param(
            schema,
            "application/json",
            b'{"rows": [1,]}',
            "The body is not strict JSON: trailing comma is not allowed at character 11.",
            id=f"json, {schema}",
        )
        for schema in (True, False)
    ]
    + [
        pytest.param(
            True,
            "text/csv",
            b"1,2\n1,x\n",
            "Row 2 of the table contains a value that is not a number.",
            id="csv, letter",
        ),
        pytest.param(
            True,
            "text/csv",
            b"1,2\n1,2\n1,\n",
            "Row 3 of the table contains a value that is not a number.",
            id="csv, gap",
        ),
        pytest.param(
            True,
            "text/csv; header=present",
            b'a,b\n"1",2\n',
            "Row 1 of the table contains a value that is not a number.",
            id="csv, quotation marks",
        ),
        pytest.param(True, "application/x-npy", b"x", "", id="npy"),
    ],
)
def test_a_caller_learns_where_a_body_is_wrong(
    protected: MakeApp, sink: MemorySink, schema: bool, media_type: str, body: bytes, message: str
) -> None:
    """An authenticated caller gets the rule and the position in one error; the log has them as the reason."""

    class Body(Schema):
        rows = Tensor(shape=(None, 2))

    if not schema and media_type != "application/json":
        pytest.skip("only JSON is read for a route without a schema")
    app = Flask("model_app")
    policy = protect(body=Body) if schema else protect()
    app.add_url_rule("/rows", "rows", policy(lambda **_payload: "ok"), methods=["POST"])
    app.add_url_rule("/open", "open", public(lambda: "ok"), methods=["POST"])
    client = protected(app, WIRE_FORMATS=["json", "csv", "npy"]).test_client()
    options: dict[str, Any] = {"base_url": HTTPS, "data": body, "content_type": media_type}
    response = client.post("/rows", headers=caller("ada"), **options)
    document = response.get_json()
    assert (response.status_code, document["code"]) == (400, "malformed_request")
    (error,) = document["errors"]
    assert error["pointer"] == ""
    assert error["message"] == message or not message
    assert document["detail"] == "The request is malformed."
    logged = sink.records[-1]
    assert "pointers" not in logged
    assert f"{logged['reason']}.".lower() == error["message"].lower()
    if media_type == "application/json":
        assert "errors" not in client.post("/open", **options).get_json()


@pytest.mark.parametrize(
    ("media_type", "environ", "message"),
    [
        ("application/msgpack", {}, "The body cannot be read as MessagePack."),
        (
            "application/json",
            {"wsgi.input": Broken(ConnectionError("x")), "CONTENT_LENGTH": "9"},
            "The body could not be read.",
        ),
        (
            "application/json",
            {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""},
            "A chunked body is not accepted.",
        ),
    ],
    ids=["MessagePack", "stream", "chunked"],
)
def test_a_caller_learns_nothing_about_the_server(
    protected: MakeApp, sink: MemorySink, media_type: str, environ: dict[str, Any], message: str
) -> None:
    """Names of exceptions and servers are in the log only."""

    class Body(Schema):
        rows = Tensor(shape=(None, 2))

    app = Flask("model_app")
    app.add_url_rule("/rows", "rows", protect(body=Body)(lambda **_payload: "ok"), methods=["POST"])
    client = protected(app, WIRE_FORMATS=["json", "msgpack"]).test_client()
    response = client.post(
        "/rows",
        base_url=HTTPS,
        headers=caller("ada"),
        data=b"\xc1",
        content_type=media_type,
        environ_overrides=environ,
    )
    assert (response.status_code, response.get_json()["errors"][0]["message"]) == (400, message)
    reason = str(sink.records[-1]["reason"])
    assert len(reason) > len(message)
