"""Each offline check reports its fault, and nothing for the same setup without it."""

from __future__ import annotations

import json
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from marshmallow import Schema, fields

from certificates import authority
from faulty_files import CASES_OF_FILES, module_setup
from faulty_setups import CASES_OF_SETTINGS, Builder, Case, app_with, reported, serious
from flask_secure_ml import protect
from flask_secure_ml.checks import OFFLINE
from flask_secure_ml.checks.run import run
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.testing import make_key_set, make_signing_key

CASES = (*CASES_OF_SETTINGS, *CASES_OF_FILES)
# The one check that depends on the user that runs it has a test of its own.
ELSEWHERE = {"SML613"}
# Debug stays on where a literal secret is compared with a reference, and a session without TLS with one.
REMAINING = {"SML104": {"SML101"}, "SML206": {"SML102"}, "SML404": set()}


@pytest.fixture(autouse=True)
def pepper(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not one of the tests: the doctor would find it in their source.
    monkeypatch.setenv("PEPPER", token_hex(32))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_fault_and_its_fix(case: Case, tmp_path: Path) -> None:
    """The faulty setup has the finding; the fixed one has no error and no warning."""
    for name in ("faulty", "fixed"):
        (tmp_path / name).mkdir()
    faulty = set(reported(case.faulty(Builder(tmp_path / "faulty"))))
    fixed = case.fixed(Builder(tmp_path / "fixed"))
    assert faulty - set(reported(fixed)) == {case.id} | case.also
    assert serious(fixed) == REMAINING.get(case.id, set())


def test_every_check_has_a_case() -> None:
    """A check without a faulty setup could silently find nothing."""
    assert sorted(each.id for each in OFFLINE) == sorted({case.id for case in CASES} | ELSEWHERE)


def test_root_in_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of Kubernetes, and for another user, there is no finding."""
    inside = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "SML613" in set(reported(Builder(tmp_path).build(environ=inside)))
    assert "SML613" not in set(reported(Builder(tmp_path).build()))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "SML613" not in set(reported(Builder(tmp_path).build(environ=inside)))


@pytest.mark.parametrize(
    ("environ", "config", "seconds"),
    [
        ({"GUNICORN_CMD_ARGS": "-t 20"}, "timeout = 30", 20),
        ({"SECURE_ML_SERVE_TIMEOUT": "25"}, "timeout = 30", 30),
        ({"SECURE_ML_SERVE_TIMEOUT": "25"}, "", 25),
        # The default of gunicorn is unknown here, and an expression is not evaluated.
        ({"SECURE_ML_SERVE_BIND": "127.0.0.1:1"}, "timeout = 2 * 30", 0),
    ],
)
def test_timeout(tmp_path: Path, environ: dict[str, str], config: str, seconds: int) -> None:
    """It is read as gunicorn would, as far as it is configured."""
    (tmp_path / "gunicorn.conf.py").write_text(config)
    assert Builder(tmp_path).build(environ=environ).server_timeout[0] == seconds


def test_limits_of_a_gateway(tmp_path: Path) -> None:
    """A route whose bodies are too large for the gateway is found, and only if the files of the gateway are there."""
    view = protect(caps={"max_body_bytes": 20_000_000})(lambda: "ok")
    setup = Builder(tmp_path).build(app_with(("/upload", view)), DEPLOY={"request_timeout": 29})
    assert "SML631" not in set(reported(setup))
    (tmp_path / "deploy").mkdir()
    manifest = tmp_path / "deploy" / ".flask-secure-ml.json"
    for targets, sentences in ((["nginx"], []), (["nginx", "aws-api-gateway"], ["10 MB"])):
        manifest.write_text(json.dumps({f"{each}/x": "0" for each in targets}))
        found = [each for each in run(OFFLINE, setup) if each.check.id == "SML631"]
        assert [sentence in each.what for each, sentence in zip(found, sentences, strict=True)] == [True] * len(
            sentences
        )
        assert [str(each.where) for each in found] == ["target aws-api-gateway"] * len(sentences)
    manifest.write_text("{")
    assert "SML631" not in set(reported(setup))


@pytest.mark.parametrize(
    ("environ", "config", "workers"),
    [
        ({"WEB_CONCURRENCY": "4"}, "", 4),
        ({"GUNICORN_CMD_ARGS": "--bind 127.0.0.1:1 -w 3"}, "", 3),
        ({"GUNICORN_CMD_ARGS": "--workers=5"}, "", 5),
        ({"GUNICORN_CMD_ARGS": "-w2"}, "", 2),
        ({}, "workers = 6", 6),
        ({}, "import os\nworkers = os.cpu_count() * 2 + 1", 2),
        ({}, "timeout = 30", 0),
        ({}, "workers = (", 0),
        ({"WEB_CONCURRENCY": "many", "GUNICORN_CMD_ARGS": "-w 'x"}, "", 0),
        ({"SECURE_ML_SERVE_WORKERS": "3", "WEB_CONCURRENCY": "4"}, "", 3),
        ({"SECURE_ML_SERVE_BIND": "127.0.0.1:1"}, "", 2),
        ({"SECURE_ML_SERVE_BIND": "127.0.0.1:1", "WEB_CONCURRENCY": "1"}, "", 1),
        ({"GUNICORN_CMD_ARGS": "-c python:flask_secure_ml.deploy.gunicorn"}, "", 2),
        ({}, "from flask_secure_ml.deploy.gunicorn import *", 2),
        ({}, "from flask_secure_ml.deploy.gunicorn import *\nworkers = 1", 1),
    ],
)
def test_workers(tmp_path: Path, environ: dict[str, str], config: str, workers: int) -> None:
    """They are counted as gunicorn would; its configuration is read and not run."""
    if config:
        (tmp_path / "gunicorn.conf.py").write_text(config)
    assert Builder(tmp_path).build(environ=environ).workers[0] == workers


class Vector(Schema):
    """One row: a list of numbers."""

    features = fields.List(fields.Float(), required=True)


class Lists(Schema):
    """Any number of rows, as lists of lists."""

    rows = fields.List(fields.List(fields.Float()), required=True)


class Objects(Schema):
    """Any number of rows, as objects."""

    rows = fields.List(fields.Nested(Vector), required=True)


class Column(Schema):
    """Any number of numbers, which may be one row."""

    values = Tensor((None,), max_items=10)


class Fixed(Schema):
    """Three rows."""

    rows = Tensor((3, 2))


@pytest.mark.parametrize(
    ("schema", "batch"),
    [(Vector(), 0), (Lists(), 1), (Objects(), 1), (Column(), 0), (Fixed(), 0), (Vector(many=True), 1)],
)
def test_what_is_a_batch(tmp_path: Path, schema: Schema, batch: int) -> None:
    """A row is not one; any number of rows is."""
    view = protect(body=schema, scopes=["predict"])(lambda payload: payload)
    setup = Builder(tmp_path).build(app_with(("/predict", view)))
    assert list(reported(setup)).count("SML304") == batch


def test_before_the_first_key(tmp_path: Path) -> None:
    """In a build there is no key file, so scopes and plans are unknown."""
    view = protect(scopes=["explain"])(lambda: "ok")
    builder = Builder(tmp_path)
    plans = {"default": {"requests": ["5/minute"]}, "gold": {"requests": ["9/minute"]}}
    setup = builder.build(app_with(("/explain", view)), API_KEYS=str(tmp_path / "later.json"), PLANS=plans)
    assert {"SML302", "SML303"}.isdisjoint(reported(setup))


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("app.secret_key = os.urandom(24)", 1),
        ("app.secret_key = urandom(24).hex()", 1),
        ("app.config.update(SECRET_KEY=uuid.uuid4().hex)", 1),
        ("app.config.from_mapping({'SECRET_KEY': secrets.token_urlsafe()})", 1),
        ("SECRET_KEY = os.environ.get('KEY') or secrets.token_hex()", 1),
        ("app.secret_key = os.environ['KEY']", 0),
        ("app.config['OTHER'] = os.urandom(24)", 0),
    ],
)
def test_a_random_secret_key(tmp_path: Path, code: str, count: int) -> None:
    imports = "import os, secrets, uuid\nfrom os import urandom"
    source = f"{imports}\ndef configure(app):\n    {code}\ndef view():\n    return 'ok'"
    setup = module_setup(source)(Builder(tmp_path))
    assert list(reported(setup)).count("SML213") == count


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("joblib.load('m.pkl')", 1),
        ("pickle.load(open('m.pkl', 'rb'))", 1),
        ("InferenceSession('m.onnx')", 1),
        ("load_verified('m.pkl', sha256='0', loader=joblib.load)", 0),
        ("load_verified('m.pkl', sha256='0', loader=lambda data: joblib.load(data))", 0),
        ("xgboost.Booster()", 0),
        ("json.load(open('m.json'))", 0),
        ("[each() for each in ()][0](joblib)", 0),
    ],
)
def test_a_model_that_is_loaded(tmp_path: Path, code: str, count: int) -> None:
    """The source is read, not executed, so its imports need not be installed."""
    imports = "if False:\n    import joblib, pickle, json, xgboost\n    from onnxruntime import InferenceSession"
    setup = module_setup(f"{imports}\ndef view():\n    return {code}")(Builder(tmp_path))
    assert list(reported(setup)).count("SML701") == count


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        ("joblib.load('m.pkl')", 'load_verified("m.pkl", sha256="...", loader=joblib.load, allow=["pickle"])'),
        ("pickle.load(open('m'))", 'load_verified("model.bin", sha256="...", loader=pickle.load, allow=["pickle"])'),
        ("torch.load('m.pt')", 'load_verified("m.pt", sha256="...", loader=torch.load)'),
    ],
)
def test_the_fix_of_a_model_that_is_loaded(tmp_path: Path, code: str, fix: str) -> None:
    """The fix has the file name of the call, and allows pickles if the loader reads them."""
    source = f"if False:\n    import joblib, pickle, torch\ndef view():\n    return {code}"
    setup = module_setup(source)(Builder(tmp_path))
    assert [each.fix for each in run(OFFLINE, setup) if each.check.id == "SML701"] == [fix]


def test_cors_of_a_policy(tmp_path: Path) -> None:
    """A route that opens itself to every origin is found as the setting is."""
    view = protect(scopes=["predict"], cors={"origins": ["*"]})(lambda: "ok")
    setup = Builder(tmp_path).build(app_with(("/view", view)), CORS={"origins": []})
    assert list(reported(setup)).count("SML504") == 1


def test_any_of_several_scopes(tmp_path: Path) -> None:
    view = protect(any_scopes=["explain", "audit"])(lambda: "ok")
    assert "SML302" in set(reported(Builder(tmp_path).build(app_with(("/view", view)))))
    (tmp_path / "other").mkdir()
    builder = Builder(tmp_path / "other")
    assert "SML302" not in set(reported(builder.build(app_with(("/view", view)), key={"scopes": ["audit"]})))


def test_limits_of_several_workers_in_memory(tmp_path: Path) -> None:
    """The shared state may be in a file while the counters are not."""
    config = {"RATELIMIT_STORAGE_URI": "memory:"}
    setup = Builder(tmp_path).build(environ={"WEB_CONCURRENCY": "2"}, config=config)
    assert serious(setup) == {"SML403"}


def test_other_trusted_files(tmp_path: Path) -> None:
    """The authorities of clients and the keys of an issuer decide on access."""
    ca, keys = authority("CN=ca").write(tmp_path, "ca").certificate, tmp_path / "jwks.json"
    keys.write_text(make_key_set(make_signing_key("RS256", "one")))
    ca.chmod(0o666)
    keys.chmod(0o666)
    issuer = {"issuer": "https://as.example", "audience": "https://api.example", "algorithms": ["RS256"]}
    setup = Builder(tmp_path).build(
        MTLS_CLIENTS=[{"client": "trainer", "san_dns": "trainer.example"}],
        MTLS_CA_FILE=str(ca),
        TOKEN_ISSUERS=[issuer | {"jwks_file": str(keys)}],
    )
    assert list(reported(setup)).count("SML611") == 2


def test_a_file_that_can_be_replaced(tmp_path: Path) -> None:
    """In a directory that everyone can write to, the mode of the file itself says nothing, but for a sticky bit."""
    folder = tmp_path / "open"
    folder.mkdir()
    setup = Builder(folder).build()
    for mode, count in ((0o777, 2), (0o1777, 0), (0o755, 0)):
        folder.chmod(mode)
        assert list(reported(setup)).count("SML611") == count


def test_a_secret_file_that_is_gone(tmp_path: Path) -> None:
    """An unreadable file is not the subject of this check."""
    path = tmp_path / "pepper"
    path.write_text(token_hex(32))
    setup = Builder(tmp_path).build(API_KEY_PEPPER=f"file:{path}")
    path.unlink()
    assert not {"SML612", "SML004"} & set(reported(setup))


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'"}, 1),
        ({"Content-Security-Policy": "script-src 'self' data:"}, 1),
        ({"Content-Security-Policy": "default-src 'self'; script-src https://cdn.example *"}, 1),
        ({"Content-Security-Policy": None, "X-Content-Type-Options": None}, 2),
        ({"Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'; img-src *"}, 0),
        ({"Content-Security-Policy": "default-src https://*.example.com"}, 0),
        ({"X-Robots-Tag": None}, 0),
    ],
)
def test_weaker_headers(tmp_path: Path, values: dict[str, str | None], count: int) -> None:
    """In the setting and in the policy of a route."""
    view = protect(scopes=["predict"], headers={"preset": "page", "values": values})(lambda: "ok")
    setup = Builder(tmp_path).build(app_with(("/view", view)))
    assert list(reported(setup)).count("SML506") == count


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        pytest.param({"FLASK_APP": "app", "FLASK_DEBUG": "1", "SECURE_ML_SERVE_WORKERS": "2"}, [], id="no settings"),
        pytest.param({"FLASK_SECURE_ML_API_KEYS": "x"}, [], id="read"),
        pytest.param({"SECURE_ML_API_KEYS": "x"}, [], id="read by the app itself"),
        pytest.param(
            {"FLASK_SECURE_ML_CORS": "{}"},
            ["FLASK_SECURE_ML_CORS is set, but the configuration of the app has no SECURE_ML_CORS"],
            id="not read",
        ),
        pytest.param(
            {"FLASK_SECURE_ML_PLANS__default": "{}"},
            ["FLASK_SECURE_ML_PLANS__default is set, but the configuration of the app has no SECURE_ML_PLANS"],
            id="a part",
        ),
        pytest.param(
            {"FLASK_RATELIMIT_DEFAULT": "1/day"},
            ["FLASK_RATELIMIT_DEFAULT is set, but the configuration of the app has no RATELIMIT_DEFAULT"],
            id="of Flask-Limiter",
        ),
        pytest.param(
            {"SECURE_ML_CORS": "{}"},
            ["SECURE_ML_CORS is set, but Flask reads only variables that begin with FLASK_"],
            id="without a prefix",
        ),
    ],
)
def test_variables_that_are_not_read(tmp_path: Path, environ: dict[str, str], found: list[str]) -> None:
    """A variable whose setting is in the configuration is not a finding."""
    setup = Builder(tmp_path).build(environ=environ)
    assert [each.what for each in run(OFFLINE, setup) if each.check.id == "SML621"] == found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param({"SECURE_ML_STORE_URI": "memory:"}, ["SECURE_ML_STORE_URI"], id="changed"),
        pytest.param({"SECURE_ML_CORS": {}, "SECURE_ML_REALM": "x"}, ["SECURE_ML_CORS", "SECURE_ML_REALM"], id="set"),
        pytest.param({"SECURE_ML_API_KEY_PEPPER": "env:PEPPER"}, [], id="an equal value"),
    ],
)
def test_settings_that_come_too_late(tmp_path: Path, change: dict[str, Any], found: list[str]) -> None:
    setup = Builder(tmp_path).build()
    setup.app.config.update(change)
    assert [each.where.name for each in run(OFFLINE, setup) if each.check.id == "SML622"] == found


def test_a_setting_that_is_removed(tmp_path: Path) -> None:
    setup = Builder(tmp_path).build()
    del setup.app.config["SECURE_ML_STORE_URI"]
    (finding,) = (each for each in run(OFFLINE, setup) if each.check.id == "SML622")
    assert finding.what == "SECURE_ML_STORE_URI was changed after init_app, which does not read it again"


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (
            {"AUDIT_CHECKPOINT_SINKS": ["stdout"]},
            "SECURE_ML_AUDIT_CHECKPOINT_SINKS has no effect without SECURE_ML_AUDIT_LOG",
        ),
        ({"MTLS_CA_FILE": "ca.pem"}, "SECURE_ML_MTLS_CA_FILE has no effect without SECURE_ML_MTLS_CLIENTS"),
        ({"MTLS_CA_FILE": "ca.pem", "MTLS_CLIENTS": [{"client": "a", "san_dns": "a.example"}]}, ""),
        ({}, ""),
    ],
    ids=["sinks", "authorities", "authorities of clients", "neither"],
)
def test_settings_without_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    authority("CN=ca").write(tmp_path, "ca")
    setup = Builder(tmp_path).build(**settings)
    assert [each.what for each in run(OFFLINE, setup) if each.check.id == "SML623"] == ([found] if found else [])


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"REQUEST_LOG": "requests.log"}, 1),
        ({"REQUEST_LOG": "logs/requests.log", "API_KEYS": "keys.json"}, 2),
        ({"REQUEST_LOG": "stderr"}, 0),
        ({"REQUEST_LOG": "logging:flask_secure_ml.requests"}, 0),
        ({"API_KEYS": "store"}, 0),
    ],
)
def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], count: int) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    found = [each for each in run(OFFLINE, Builder(tmp_path).build(**settings)) if each.check.id == "SML614"]
    assert len(found) == count
    assert all(str(tmp_path) in each.fix for each in found)
