"""An app with an audit log, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, current_app
from marshmallow import Schema, fields

from flask_secure_ml import SecureML, current_exchange, protect, public
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.observe.audit.keys import load_verification_key, make_keys
from flask_secure_ml.observe.audit.log import AuditLog
from flask_secure_ml.observe.audit.reading import records_of
from flask_secure_ml.observe.audit.records import Members
from flask_secure_ml.observe.audit.verify import verify_log
from flask_secure_ml.principal import Clock
from flask_secure_ml.state import state_of
from flask_secure_ml.testing import MemorySink
from support import NameAuthenticator


class Rows(Schema):
    """Rows of two numbers, and a name."""

    rows = Tensor(shape=(None, 2), dtype="float32", max_items=100)
    name = fields.String()


class Audited:
    """The app, and its log."""

    def __init__(self, base: Path, clock: Clock, **settings: Any) -> None:
        self.folder, self.key = base / "log", base / "verification.key"
        if not self.key.exists():
            make_keys(self.folder, self.key, "tests/audit")
        self.outside = base / "outside"
        self._clock = clock
        self.sink = MemorySink()
        self.app = Flask("audited")
        self.app.config.update({f"SECURE_ML_{name}": value for name, value in settings.items()})
        self.app.config["SECURE_ML_AUDIT_LOG"] = str(self.folder)
        self.app.config.setdefault("SECURE_ML_AUDIT_CHECKPOINT_SINKS", [f"file:{self.outside}"])
        SecureML(self.app, authenticators=[NameAuthenticator()], clock=clock, sink=self.sink)
        add_routes(self.app)
        self.client = self.app.test_client()

    @property
    def log(self) -> AuditLog:
        audit = state_of(self.app).audit
        assert audit is not None
        return audit

    def records(self, *actions: str) -> list[Members]:
        found = list(records_of(self.folder))
        return [each for each in found if each["action"] in actions] if actions else found

    def assert_verifies(self) -> None:
        report = verify_log(
            self.folder, load_verification_key(self.key), outside=self.outside.read_text(), now=self._clock.now()
        )
        assert report.ok, [str(each) for each in report.findings]


def add_routes(app: Flask) -> None:
    @app.post("/predict/<path:name>")
    @protect(scopes=["predict"], body=Rows, cost="rows")
    def predict(name: str, payload: dict[str, Any]) -> dict[str, Any]:
        current_exchange.used_model("digits", "3")
        return {"sums": payload["rows"].sum(axis=1)}

    @app.get("/open")
    @public
    def open_() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/stream")
    @public
    def stream() -> Response:
        def parts() -> Iterator[str]:
            yield "a"
            yield "b"

        return current_app.response_class(parts())

    @app.get("/broken-stream")
    @public
    def broken_stream() -> Response:
        def parts() -> Iterator[str]:
            yield "a"
            raise RuntimeError("a secret of the model")

        return current_app.response_class(parts())

    @app.get("/crash")
    @public
    def crash() -> str:
        raise RuntimeError("a secret of the model")

    @app.get("/abort")
    @public
    def aborted() -> str:
        abort(409)
