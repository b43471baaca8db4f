"""Optional modules are imported only if they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import RANDOM_SECRET

_APP = f"""
import os
from flask import Flask
from flask_secure_ml import SecureML
os.environ["PEPPER"] = {RANDOM_SECRET!r}
app = Flask("app")
app.config.update(SECURE_ML_API_KEYS=KEYS, SECURE_ML_API_KEY_PEPPER="env:PEPPER")
SecureML(app)
"""
_DESCRIBED = _APP.replace("SecureML(app)", "app.config['SECURE_ML_OPENAPI'] = 'public'; SecureML(app)")
_KEYS_CREATE = f"""
{_APP}
from flask_secure_ml.cli import secure_ml
done = app.test_cli_runner().invoke(secure_ml, ["keys", "create", "--client", "ada"])
assert done.exit_code == 0, done.output
"""
_METHODS = (
    "flask_secure_ml.authentication.mtls",
    "flask_secure_ml.authentication.session",
    "flask_secure_ml.authentication.tokens",
    "flask_secure_ml.authentication.api_keys.shared_store",
)
_OFF = (
    *_METHODS,
    "flask_secure_ml.fetch",
    "flask_secure_ml.model_files",
    "flask_secure_ml.observe.audit",
    "flask_secure_ml.openapi",
    "flask_secure_ml.inputs.profiles",
    "flask_secure_ml.inputs.model_inputs",
    "flask_secure_ml.inputs.unseen_changes",
    "flask_secure_ml.inputs.fields.image",
    "flask_secure_ml.inputs.fields.text",
    "flask_secure_ml.inputs.fields.url",
    "flask_secure_ml.inputs.formats.csv",
    "flask_secure_ml.inputs.formats.messagepack",
    "flask_secure_ml.inputs.formats.oip",
    "flask_secure_ml.stores.redis",
    "flask_secure_ml.stores.sqlite",
    "PIL",
    "apispec",
    "authlib",
    "cryptography",
    "flask_limiter",
    "hvac",
    "joserfc",
    "msgpack",
    "redis",
    "requests",
    "sqlite3",
)
"""What an app does not need that has nothing but API keys in a file."""

_SERVING = (
    "flask_secure_ml.authentication",
    "flask_secure_ml.cli",
    "flask_secure_ml.config",
    "flask_secure_ml.inputs",
    "flask_secure_ml.limits",
    "flask_secure_ml.observe",
    "flask_secure_ml.outputs",
    "flask_secure_ml.secrets",
    "flask_secure_ml.stores",
    "flask_secure_ml.transport",
    "flask_secure_ml.wiring",
    "asyncio",
    "flask_talisman",
    "limits",
    "orjson",
)
"""What every protected app needs, and no declaration."""

_USES = {
    "import flask_secure_ml": _OFF + _SERVING,
    "from flask_secure_ml import SecureML, protect; protect(scopes=['predict'])(print); SecureML()": _OFF + _SERVING,
    "from flask_secure_ml.cli import secure_ml": (*_OFF, "flask_secure_ml.cli.keys", "flask_secure_ml.wiring"),
    "from flask_secure_ml.inputs import Tensor; Tensor((None,))": (
        "flask_secure_ml.inputs.profiles",
        "flask_secure_ml.inputs.model_inputs",
        "flask_secure_ml.inputs.fields.image",
        "PIL",
    ),
    _APP: (*_OFF, "click.testing", "flask.testing", "pdb"),
    _DESCRIBED: (*_METHODS, "authlib", "cryptography", "joserfc"),
    _KEYS_CREATE: (*_OFF, "flask_secure_ml.cli.model", "flask_secure_ml.cli.routes"),
}


def _printed(code: str, tmp_path: Path) -> str:
    """Return the output of another process that runs the code, in which ``KEYS`` is the path of a file."""
    command = [sys.executable, "-c", f"KEYS = {str(tmp_path / 'keys.json')!r}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("code", _USES)
def test_what_is_off_is_not_imported(code: str, tmp_path: Path) -> None:
    """A module that a use of the package does not need is not there after it."""
    unwanted = _USES[code]
    found = f"sorted(each for each in sys.modules if f'{{each}}.'.startswith({tuple(f'{name}.' for name in unwanted)}))"
    assert _printed(f"{code}\nimport sys; print({found})", tmp_path) == "[]"


@pytest.mark.parametrize(
    ("code", "absent"),
    [("import flask_secure_ml", "Schema"), (_APP, "MtlsClientSchema"), (_APP, "IssuerConfigSchema")],
)
def test_schemas_of_options_are_made_when_they_are_needed(code: str, absent: str, tmp_path: Path) -> None:
    """None by an import, and none for an option that is not set."""
    made = "[each.__name__ for each in OptionsSchema.__subclasses__()]"
    printed = _printed(f"{code}\nfrom flask_secure_ml.policy.schema import OptionsSchema; print({made})", tmp_path)
    assert absent not in printed
    assert ("SettingsSchema" in printed) == (code is _APP)


def test_public_names_of_inputs() -> None:
    """Each can be imported and is listed, though it is imported at its first use."""
    code = """
import flask_secure_ml.inputs as inputs
assert set(inputs.__all__) <= set(dir(inputs))
assert list(inputs.__all__) == sorted(inputs.__all__)
assert all(getattr(inputs, name).__module__.startswith("flask_secure_ml.inputs.") for name in inputs.__all__)
from flask_secure_ml.inputs import *
assert Tensor is inputs.Tensor
try:
    inputs.Tensors
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "module 'flask_secure_ml.inputs' has no attribute 'Tensors'"
