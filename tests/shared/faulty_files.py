"""Setups with one faulty file each, and the same setups without the fault: the second part of the table."""

from __future__ import annotations

import pickle
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask

from faulty_setups import Build, Builder, Case
from flask_secure_ml.checks.setup import Setup
from flask_secure_ml.deploy.facts import facts_of
from flask_secure_ml.deploy.files import Output
from flask_secure_ml.deploy.targets import targets
from flask_secure_ml.extension import SecureML
from flask_secure_ml.observe.audit.keys import make_keys
from flask_secure_ml.state import state_of
from support import OLDER_SECRET, RANDOM_SECRET

TARGETS = targets()
VERIFIED = """
import joblib
from flask_secure_ml.model_files import load_verified
def view():
    return str(load_verified("model.pkl", sha256="00", loader=lambda data: joblib.load(data)))
"""
KEY_IN_CODE = f"""
SECRET_KEY = {RANDOM_SECRET!r}
def view():
    return "ok"
"""
RANDOM_KEY = """
import secrets
from flask import Flask
def configure(app):
    app.config["SECRET_KEY"] = secrets.token_hex(32)
def view():
    return "ok"
"""
UNVERIFIED = """
from joblib import load as read
def view():
    return str(read("model.pkl"))
"""


def _audited(*, mode: int = 0o700, key_inside: bool = False, sinks: bool = True) -> Build:
    def build(builder: Builder) -> Setup:
        log, key = builder.folder / "audit", builder.folder / "verification.key"
        make_keys(log, key, "tests/audit")
        if key_inside:
            key.rename(log / "verification.key")
        (log / "notes.txt").write_text("no key")
        log.chmod(mode)
        witness = [f"file:{builder.folder}/checkpoints"] if sinks else []
        return builder.build(AUDIT_LOG=str(log), AUDIT_CHECKPOINT_SINKS=witness)

    return build


def _unlogged(**settings: Any) -> Build:
    def build(builder: Builder) -> Setup:
        sound = builder.build()
        app = Flask("model_app", static_folder=None)
        app.config.update({key: value for key, value in sound.app.config.items() if key.startswith("SECURE_ML_")})
        app.config.update({f"SECURE_ML_{name}": value for name, value in settings.items()})
        SecureML(app)
        return Setup(app, state_of(app), {}, builder.folder)

    return build


def _key_file(mode: int) -> Build:
    def build(builder: Builder) -> Setup:
        setup = builder.build()
        (builder.folder / "keys.json").chmod(mode)
        return setup

    return build


def _pepper_file(mode: int) -> Build:
    def build(builder: Builder) -> Setup:
        path = builder.folder / "pepper"
        path.write_text(RANDOM_SECRET)
        path.chmod(mode)
        return builder.build(API_KEY_PEPPER=f"file:{path}")

    return build


def _metrics_port(address: str) -> Build:
    def build(builder: Builder) -> Setup:
        path = builder.folder / "token"
        path.write_text(RANDOM_SECRET)
        path.chmod(0o600)
        return builder.build(METRICS_LISTEN=address, METRICS_TOKEN=f"file:{path}")

    return build


def module_setup(source: str, secret_key: str | None = None) -> Build:
    """Return a setup whose only view is in a separate module."""

    def build(builder: Builder) -> Setup:
        path = builder.folder / "views_of_test.py"
        path.write_text(source)
        spec = spec_from_file_location("views_of_test", path)
        module = module_from_spec(spec)  # type: ignore[arg-type]
        sys.modules["views_of_test"] = module
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        app = Flask("model_app", static_folder=None)
        app.add_url_rule("/view", view_func=module.view)
        return builder.build(app, config={"SECRET_KEY": secret_key})

    return build


def _model_file(name: str, content: Any, mode: int = 0o600) -> Build:
    def build(builder: Builder) -> Setup:
        path: Path = builder.folder / name
        if name.endswith(".npy"):
            np.save(path, content)
        else:
            path.write_bytes(content)
        path.chmod(mode)
        return builder.build(config={"MODEL_FILE": str(path)})

    return build


class Payload:
    """Runs a function when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


NUMBERS = np.zeros((2, 2))


def _generated(target: str, **deploy: Any) -> Build:
    """Return a setup whose directory has the generated files of a target."""

    def build(builder: Builder) -> Setup:
        setup = builder.build(DEPLOY=deploy, TRUSTED_PROXIES=["10.0.3.0/24"])
        files = TARGETS[target].make(facts_of(setup.app))
        wanted = {f"{target}/{path}": content for path, content in files.items()}
        Output(builder.folder / "deploy", wanted, frozenset({target})).write(force=False)
        return setup

    return build


CASES_OF_FILES = (
    Case("SML212", module_setup(KEY_IN_CODE, RANDOM_SECRET), module_setup(VERIFIED, OLDER_SECRET)),
    Case("SML213", module_setup(RANDOM_KEY, OLDER_SECRET), module_setup(KEY_IN_CODE, OLDER_SECRET)),
    Case("SML601", _audited(sinks=False), _audited()),
    Case("SML602", _audited(mode=0o755), _audited()),
    Case("SML603", _audited(key_inside=True), _audited()),
    Case(
        "SML631",
        _generated("aws-api-gateway", request_timeout=60),
        _generated("aws-api-gateway", request_timeout=29),
    ),
    Case("SML604", _unlogged(REQUEST_LOG="off"), _unlogged(REQUEST_LOG="stderr")),
    Case("SML605", lambda builder: builder.build(OPENAPI="public"), lambda builder: builder.build(OPENAPI="protected")),
    Case(
        "SML606",
        lambda builder: builder.build(MODEL={"name": "digits"}),
        lambda builder: builder.build(MODEL={"name": "digits", "version": "3"}),
    ),
    Case("SML607", _metrics_port("10.0.0.7:9100"), _metrics_port("127.0.0.1:9100")),
    Case("SML611", _key_file(0o666), _key_file(0o600)),
    Case("SML612", _pepper_file(0o644), _pepper_file(0o640)),
    Case("SML701", module_setup(UNVERIFIED), module_setup(VERIFIED)),
    Case("SML702", _model_file("model.npy", NUMBERS, 0o666), _model_file("model.npy", NUMBERS)),
    Case("SML703", _model_file("model.pkl", pickle.dumps(Payload())), _model_file("model.npy", NUMBERS)),
)
