"""One record for each response, and one for each event."""

from __future__ import annotations

import gc
import json
import logging
import logging.config
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from marshmallow import Schema, fields

from audited_app import Audited, Rows
from flask_secure_ml import SecureML, current_exchange, protect, public
from flask_secure_ml.observe.request_log.entry import known_pointer
from flask_secure_ml.testing import FakeClock
from loggers import unchanged_loggers
from support import HTTPS, caller

KEY_SET_LOGGER = "flask_secure_ml.authentication.tokens.key_set"


@pytest.fixture
def audited(tmp_path: Path, clock: FakeClock) -> Audited:
    return Audited(tmp_path, clock)


def test_the_record_of_a_prediction(audited: Audited) -> None:
    """One record has the caller, time, action, result and input: authentication, limits and prediction."""
    response = audited.client.post(
        "/predict/x", base_url=HTTPS, headers=caller("ada", "predict"), json={"rows": [[1, 2], [3, 4]]}
    )
    assert response.status_code == 200
    (record,) = audited.records("request")
    assert re.fullmatch("[0-9a-f]{64}", record.pop("input_digest"))
    assert re.fullmatch("[0-9a-f]{32}", record.pop("stream"))
    assert re.fullmatch("[0-9a-f]{64}", record.pop("prev"))
    assert record == {
        "action": "request",
        "code": None,
        "credential": "ada",
        "credential_kind": "test",
        "duration_us": 0,
        "endpoint": "predict",
        "input_bytes": 26,
        "method": "POST",
        "model": "digits@3",
        "network": "127.0.0.1",
        "plan": "default",
        "policy": "predict",
        "principal": "test:ada",
        "request_id": response.headers["X-Request-ID"],
        "rows": 2,
        "seq": 2,
        "status": 200,
        "time": "2027-01-15T08:00:00.000000Z",
    }


@pytest.mark.parametrize(
    ("method", "path", "headers", "sent", "members"),
    [
        pytest.param("GET", "/x", {}, {}, {"status": 401, "code": "not_authenticated"}, id="no credential"),
        pytest.param("GET", "/x", caller("bad"), {}, {"status": 401, "reason": "a bad caller"}, id="bad credential"),
        pytest.param("GET", "/x", caller("ada"), {}, {"status": 404, "principal": "test:ada"}, id="unknown URL"),
        pytest.param(
            "POST", "/predict/x", caller("ada"), {"json": {}}, {"status": 403, "code": "insufficient_scope"}, id="scope"
        ),
        pytest.param(
            "POST",
            "/predict/x",
            caller("ada", "predict"),
            {"json": {"rows": [[1, 2], [3, "hidden"]], "name": 5}},
            {"status": 422, "pointers": ["/name", "/rows/1/1"]},
            id="schema",
        ),
        pytest.param("GET", "/crash", {}, {}, {"status": 500, "reason": "unhandled RuntimeError"}, id="crash"),
        pytest.param("GET", "/abort", {}, {}, {"status": 409, "policy": "public"}, id="abort"),
    ],
)
def test_rejections(
    audited: Audited, method: str, path: str, headers: dict[str, str], sent: dict[str, Any], members: dict[str, Any]
) -> None:
    """With the private reason, and for a 422 where the faults are, without any value."""
    response = audited.client.open(path, method=method, base_url=HTTPS, headers=headers, **sent)
    (record,) = audited.records("request")
    if "pointers" in record:
        record["pointers"].sort()
    assert {name: record.get(name) for name in members} == members
    assert record["status"] == response.status_code
    assert "hidden" not in str(record)


def test_clear_text(audited: Audited) -> None:
    """Rejected before everything else, and recorded."""
    assert audited.client.get("/open", base_url="http://localhost").status_code == 403
    assert audited.records("request")[0]["code"] == "tls_required"


def test_the_model_of_a_registry(audited: Audited) -> None:
    """Its version may be a number."""

    @audited.app.get("/named")
    @public
    def named() -> str:
        current_exchange.used_model("digits", 12)
        return "ok"

    audited.client.get("/named", base_url=HTTPS)
    assert audited.records("request")[0]["model"] == "digits@12"
    (line,) = audited.sink.records
    assert (line["model.name"], line["model.version"]) == ("digits", "12")


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/predict/x", {"rows": [[1, 2]]}, "digits@3"),
        ("/other", {"rows": [[1, 2]]}, "all@7"),
        ("/other", {"rows": "invalid"}, None),
        ("/open", None, None),
    ],
    ids=["named", "served", "rejected", "no_body"],
)
def test_the_model(tmp_path: Path, clock: FakeClock, path: str, body: dict[str, Any] | None, model: str | None) -> None:
    """The one that the view names or, if a body was accepted, the one that the app serves; the log agrees."""
    audited = Audited(tmp_path, clock, MODEL={"name": "all", "version": "7"})
    audited.app.add_url_rule("/other", "other", protect(body=Rows)(lambda payload: "ok"), methods=["POST"])
    method = "GET" if body is None else "POST"
    audited.client.open(path, method=method, base_url=HTTPS, headers=caller("ada", "predict"), json=body)
    (record,) = audited.records("request")
    assert record.get("model") == model
    (line,) = audited.sink.records
    assert f"{line['model.name']}@{line['model.version']}" == (model or "all@7")


@pytest.mark.parametrize(("path", "reason"), [("/stream", None), ("/broken-stream", "unhandled RuntimeError")])
def test_streams_have_two_records(audited: Audited, path: str, reason: str | None) -> None:
    """One when the response starts, one when it ends, with why it ended early."""
    with audited.client.get(path, base_url=HTTPS, buffered=False) as response, suppress(RuntimeError):
        response.get_data()
    first, second = audited.records("request", "stream_end")
    assert (first["action"], second["action"]) == ("request", "stream_end")
    assert first["request_id"] == second["request_id"]
    assert second.get("reason") == reason


def test_the_record_is_there_before_the_first_byte(audited: Audited) -> None:
    """A client that has received anything of a response has a record."""
    response = audited.client.get("/stream", base_url=HTTPS, buffered=False)
    first = next(iter(response.response))
    assert first == b"a"
    assert len(audited.records("request")) == 1
    assert audited.records("stream_end") == []
    response.close()


@pytest.mark.parametrize(
    ("level", "logger", "message", "action"),
    [
        pytest.param(
            "warning", "flask_secure_ml.limits.failure_throttle", "network 192.0.2.1 blocked", "block", id="block"
        ),
        pytest.param("warning", "flask_secure_ml.limits.sqlite_file", "counted from zero", "limits", id="limits"),
        pytest.param("error", "flask_secure_ml.refresh.breaker", "the store is down: refused", "outage", id="outage"),
        pytest.param("warning", KEY_SET_LOGGER, "ignoring signing key 2 of a JWK Set: oct", "key_set", id="key_set"),
    ],
)
def test_blocks_and_outages(audited: Audited, level: str, logger: str, message: str, action: str) -> None:
    """They are recorded as the package logs them."""
    getattr(logging.getLogger(logger), level)("%s", message)
    assert [each["message"] for each in audited.records(action)] == [message]


@pytest.mark.parametrize(
    ("configuration", "off", "blocks"),
    [
        ({}, 5, 0),
        ({"disable_existing_loggers": False}, 0, 1),
        ({"disable_existing_loggers": False, "loggers": {"flask_secure_ml": {"level": "INFO"}}}, 0, 1),
        ({"disable_existing_loggers": False, "loggers": {"flask_secure_ml": {"level": "CRITICAL"}}}, 5, 0),
    ],
    ids=["disabled", "kept", "configured", "level"],
)
def test_logging_that_is_configured_later(
    tmp_path: Path, clock: FakeClock, configuration: dict[str, Any], off: int, blocks: int
) -> None:
    """Events are still recorded, or the log has a record that they are not."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("flask_secure_ml")]
    with unchanged_loggers(*names):
        audited = Audited(tmp_path, clock, FAILED_AUTH_LIMITS=["1/minute"])
        logging.config.dictConfig({"version": 1, **configuration})
        for _ in range(3):
            audited.client.get("/x", base_url=HTTPS, headers=caller("bad"))
    assert [len(each["loggers"]) for each in audited.records("events_off")] == [off] * bool(off)
    assert len(audited.records("block")) == blocks


def test_messages_have_no_credentials(audited: Audited) -> None:
    """A token may claim a subject that looks like one."""
    logging.getLogger("flask_secure_ml.limits").warning("%r is blocked", "https://issuer#eyJhbGciOi.c4n4ry")
    assert [each["message"] for each in audited.records("limits")] == ["'https://issuer#[redacted]' is blocked"]


def test_a_real_block_is_recorded(tmp_path: Path, clock: FakeClock) -> None:
    """By the limits of this app."""
    audited = Audited(tmp_path, clock, FAILED_AUTH_LIMITS=["1/minute"])
    for _ in range(3):
        audited.client.get("/x", base_url=HTTPS, headers=caller("bad"))
    (record,) = audited.records("block")
    assert record["message"].startswith("network 127.0.0.1 blocked for 60 seconds")


@pytest.mark.parametrize(
    ("store", "names"), [("memory:", ["one"]), ("sqlite:{}/state", ["one", "two"])], ids=["memory", "sqlite"]
)
def test_a_blocked_caller_is_recorded(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture, store: str, names: list[str]
) -> None:
    """Once, by one of the processes that share a store, however long its requests extend the block."""
    settings = {
        "STORE_URI": store.format(tmp_path),
        "PLANS": {"default": {"requests": ["2/minute"]}},
        "LIMIT_BACKOFF": {"tolerance": 1, "base": 5, "jitter": 0, "block_after": 2, "block": 4_000},
    }
    apps = [Audited(tmp_path / name, clock, **settings) for name in names]
    statuses: list[int] = []
    for _ in range(30):
        statuses += [each.client.get("/x", base_url=HTTPS, headers=caller("eve")).status_code for each in apps]
        clock.advance(1.5)
    assert statuses[-2:] == [429, 429]
    message = "'test:eve' blocked for 4000 seconds: more requests before Retry-After than tolerated (penalty 2)"
    assert [each for each in caplog.messages if "blocked" in each] == [message]
    assert [each["message"] for each in apps[0].records("block")] == [message]


def test_a_log_that_is_collected_during_a_message(tmp_path: Path, clock: FakeClock) -> None:
    """Its handler is removed, and the log of another app still gets the message."""
    package = logging.getLogger("flask_secure_ml")
    before = [*package.handlers]
    apps = [Audited(tmp_path / "one", clock)]

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            apps.clear()
            gc.collect()

    collector = Collector()
    package.addHandler(collector)
    try:
        other = Audited(tmp_path / "two", clock)
        logging.getLogger("flask_secure_ml.limits").warning("the store was reset")
    finally:
        package.removeHandler(collector)
    assert [each["message"] for each in other.records("limits")] == ["the store was reset"]
    assert len([each for each in package.handlers if each not in before]) == 1


def test_events_of_the_app(audited: Audited) -> None:
    """An app records what it does itself; members are strict."""
    assert SecureML.audit_event(audited.app, "model_replaced", {"model": "digits", "version": 3, "by": ["ada"]})
    (record,) = audited.records("model_replaced")
    assert (record["model"], record["version"], record["by"]) == ("digits", 3, ["ada"])
    for wrong in (
        {"accuracy": 0.5},
        {"x": b"bytes"},
        {"x": 2**53},
        {"a b": 1},
        {"x": [[[[[1]]]]]},
        {"x": list(range(65))},
    ):
        with pytest.raises(ValueError, match="audit record"):
            SecureML.audit_event(audited.app, "model_replaced", wrong)


@pytest.mark.parametrize("note", ["a" * 1000, "\n" * 200, "\U0001f600" * 250])
def test_events_that_are_too_large(audited: Audited, note: str) -> None:
    """They are rejected, because the verification reports lines of more than 64 KiB as tampering."""
    largest = 60_000 // len(json.dumps(note, ensure_ascii=False).encode().replace(b"\\n", b"xxxxxx")) - 1
    notes = [note] * min(largest, 64)
    assert SecureML.audit_event(audited.app, "notes", {"notes": notes})
    with pytest.raises(ValueError, match="60000 bytes"):
        SecureML.audit_event(audited.app, "notes", {"notes": notes, "more": notes})
    audited.log.close()
    audited.assert_verifies()


def test_a_record_that_is_too_long(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as missing, and the stream continues."""
    with monkeypatch.context() as patch:
        patch.setattr("flask_secure_ml.observe.audit.log.members_of", lambda *_: {"action": "x", "text": "a" * 70_000})
        audited.client.get("/open", base_url=HTTPS)
    audited.client.get("/open", base_url=HTTPS)
    assert [each["lost"] for each in audited.records("gap")] == [1]
    audited.log.close()
    audited.assert_verifies()


def test_events_without_a_log(app: Any) -> None:
    """They are not written, and the caller is informed."""
    assert SecureML.audit_event(app, "model_replaced", {}) is False


def test_start_configuration_and_stop(tmp_path: Path, clock: FakeClock) -> None:
    """A worker records that it starts and stops, and which settings differ from those of the worker before."""
    first = Audited(tmp_path, clock)
    SecureML.load(first.app)
    first.log.close()
    clock.advance(1)
    second = Audited(tmp_path, clock, REALM="other")
    SecureML.load(second.app)
    second.log.close()
    starts, changes = second.records("start"), second.records("configuration")
    assert len(starts) == len(second.records("stop")) == 2
    assert starts[0]["configuration"] != starts[1]["configuration"]
    assert all(each["pid"] and each["version"] for each in starts)
    assert changes[-1]["changed"] == ["SECURE_ML_REALM"]
    ends = [json.loads(line) for line in (second.folder / "index.jsonl").read_text().splitlines()]
    assert sum("final" in each for each in ends) == 2
    second.assert_verifies()


def test_nothing_breaks_a_line(audited: Audited) -> None:
    """For any input, control and bidirectional characters are escaped (STANDARDS P6)."""
    for path in ("/a%0d%0aINFO", "/%1b%5b31m", "/%e2%80%a8%e2%80%ae", "/%ff%fe"):
        audited.client.open(path, method="G\u2028T", base_url=HTTPS)
    SecureML.audit_event(audited.app, "note", {"text": "a\r\nb\x1b[31m\u2028\u202e\ud800"})
    for file in (audited.folder / "streams").iterdir():
        assert file.read_text("utf-8").replace("\n", "").isprintable()
    assert audited.records("note")[0]["text"] == "a\\u{d}\\u{a}b\\u{1b}[31m\\u{2028}\\u{202e}\\u{d800}"


def test_threads_share_one_stream(audited: Audited) -> None:
    """In one order, without gaps."""

    def work() -> None:
        client = audited.app.test_client()
        for _ in range(50):
            client.get("/open", base_url=HTTPS)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(audited.records("request")) == 400
    audited.log.close()
    audited.assert_verifies()


class Inner(Schema):
    a = fields.Integer()
    b = fields.List(fields.Integer())


class Enclosing(Schema):
    x = fields.Nested(Inner)
    y = fields.List(fields.Nested(Inner))
    z = fields.Nested(Inner, many=True)
    d = fields.Dict()
    k = fields.Integer(data_key="a/b")


@pytest.mark.parametrize(
    ("pointer", "recorded"),
    [
        ("", ""),
        ("/x/a", "/x/a"),
        ("/x/secret", "/x/*"),
        ("/x/b/3", "/x/b/3"),
        ("/y/0/a", "/y/0/a"),
        ("/y/1/secret", "/y/1/*"),
        ("/z/2/a", "/z/2/a"),
        ("/z/2/secret", "/z/2/*"),
        ("/d/secret/value", "/d/*/*"),
        ("/a~1b", "/a~1b"),
        ("/secret", "/*"),
        ("/secret/a", "/*/*"),
        ("/y/1234567890123", "/y/*"),
    ],
)
def test_names_that_the_client_made_up(pointer: str, recorded: str) -> None:
    """They are not part of a record, which has only names of the schema and indexes."""
    assert known_pointer(pointer, Enclosing()) == recorded
    assert known_pointer(f"/0{pointer}", Enclosing(many=True)) == f"/0{recorded}"
    assert known_pointer("/secret", None) == "/*"
