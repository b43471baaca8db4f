"""What is imported only by those who use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_USES = {
    "import flask_secure_ml": (
        "model_files",
        "openapi",
        "inputs.profiles",
        "inputs.model_inputs",
        "inputs.unseen_changes",
        "inputs.fields.image",
        "inputs.fields.text",
        "inputs.fields.url",
        "inputs.formats.csv",
        "inputs.formats.messagepack",
        "inputs.formats.oip",
    ),
    "from flask_secure_ml.inputs import Tensor; Tensor((None,))": (
        "inputs.profiles",
        "inputs.model_inputs",
        "inputs.fields.image",
    ),
    "from flask import Flask; import flask_secure_ml; flask_secure_ml.SecureML(Flask('app'))": (
        "model_files",
        "openapi",
        "inputs.fields.image",
        "inputs.formats.oip",
    ),
}


@pytest.mark.parametrize("code", _USES)
def test_what_is_off_is_not_imported(code: str) -> None:
    """A module that a use of the package does not need is not there after it."""
    unwanted = tuple(f"flask_secure_ml.{name}" for name in _USES[code])
    found = f"[each for each in sys.modules if each.startswith({unwanted})], 'PIL' in sys.modules"
    command = [sys.executable, "-c", f"{code}; import sys; print({found})"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


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
