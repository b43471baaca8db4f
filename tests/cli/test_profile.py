"""``flask secure-ml profile fit`` and ``model schema``."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from flask_secure_ml.cli import secure_ml
from flask_secure_ml.inputs import Profile, Tensor
from support import MakeApp


def run(make_app: MakeApp, *arguments: object) -> tuple[int, str, str]:
    result = make_app().test_cli_runner().invoke(secure_ml, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text("age,size,label\n31,1.5,0\n44,,1\n18,2.5,0\n")
    return path


def test_fit_prints(protected: MakeApp, data: Path) -> None:
    """Without a path, the profile is alone on stdout."""
    code, output, note = run(protected, "profile", "fit", data)
    profile = json.loads(output)
    assert (code, note) == (0, "3 rows, 3 features\n")
    assert (profile["version"], profile["rows"], profile["quantiles"]) == (1, 3, [0.001, 0.999])
    assert [feature["name"] for feature in profile["features"]] == ["age", "size", "label"]


def test_fit_writes(protected: MakeApp, data: Path) -> None:
    """The written profile, without the target column, is loaded by a field."""
    path = data.with_name("profile.json")
    assert run(protected, "profile", "fit", data, "-o", path, "--target", "label", "--quantiles", "0.1,0.5,0.9") == (
        0,
        "",
        "3 rows, 2 features\n",
    )
    assert Profile.load(path).quantiles == (0.1, 0.5, 0.9)
    assert Tensor(profile=path).deserialize([[31, 2.5]]).tolist() == [[31, 2.5]]


def test_fit_target_by_number(protected: MakeApp, tmp_path: Path) -> None:
    """Columns of an array have numbers, also negative ones."""
    np.save(tmp_path / "data.npy", np.arange(6).reshape(2, 3))
    assert run(protected, "profile", "fit", tmp_path / "data.npy", "--target", "-1")[2] == "2 rows, 2 features\n"


@pytest.mark.parametrize(
    "arguments",
    [["--quantiles", "a,b"], ["--quantiles", "0.9,0.1"], ["--target", "price"], ["-o", "/none/profile.json"]],
    ids=str,
)
def test_fit_fails_in_a_sentence(protected: MakeApp, data: Path, arguments: list[str]) -> None:
    """No file is written, and no traceback is printed."""
    code, output, error = run(protected, "profile", "fit", data, *arguments)
    assert (code, output) == (1, "")
    assert error.startswith("Error: ")
    assert "Traceback" not in error


def test_schema_of_an_object(protected: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of a module in the working directory is imported, and the source is that of a schema."""
    (tmp_path / "profiled_model.py").write_text("class Holder:\n    class model:\n        n_features_in_ = 4\n")
    monkeypatch.chdir(tmp_path)
    code, output, error = run(protected, "model", "schema", "profiled_model:Holder.model")
    assert (code, error) == (0, "")
    assert 'instances = Tensor((None, 4), dtype="float64")' in output


def test_schema_of_an_mlflow_model(protected: MakeApp, tmp_path: Path) -> None:
    """A directory is read, without mlflow."""
    pytest.importorskip("yaml")
    (tmp_path / "MLmodel").write_text("""signature:\n  inputs: '[{"type": "double", "name": "age"}]'\n""")
    assert "Tensor((None, 1)" in run(protected, "model", "schema", tmp_path)[1]


@pytest.mark.parametrize("name", ["none.onnx", "none", "none:model", "json:none", "json:", ":loads", "json:loads"])
def test_schema_fails_in_a_sentence(protected: MakeApp, name: str) -> None:
    """The message names the file that is not a model."""
    pytest.importorskip("onnx")
    code, output, error = run(protected, "model", "schema", name)
    assert (code, output) == (1, "")
    assert error.startswith("Error: ")
    assert "Traceback" not in error


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib"])
def test_schema_never_loads_pickles(protected: MakeApp, tmp_path: Path, name: str) -> None:
    """A scikit-learn file is rejected with an alternative; loading it would end the test."""
    (tmp_path / name).write_bytes(pickle.dumps(pytest.fail))
    code, _, error = run(protected, "model", "schema", tmp_path / name)
    assert code == 1
    assert "load yours in your own module" in error
