"""Inputs that models describe, and the resulting fields and schemas."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from marshmallow import Schema, ValidationError

from flask_secure_ml.inputs import ModelInputsError, Tensor
from flask_secure_ml.inputs.model_inputs import ModelInput, inputs_of, schema_source

NUMBERS = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [1.0, 0.0, 2.0], [2.0, 2.0, 2.0]])
LABELS = [0, 1, 0, 1]


def built(inputs: tuple[ModelInput, ...]) -> Schema:
    """Execute the source of a schema, like a user who pastes it."""
    names: dict[str, Any] = {}
    exec(schema_source(inputs), names)
    schema: Schema = names["ModelInputs"]()
    return schema


class TestScikitLearn:
    """Fitted estimators."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("sklearn")

    def test_estimator(self) -> None:
        """Rows of as many features as it was fitted to, in double precision, finite."""
        from sklearn.naive_bayes import GaussianNB

        field = Tensor.for_model(GaussianNB().fit(NUMBERS, LABELS), max_items=10)
        assert (field.shape, field.dtype.name, field.max_items) == ((None, 3), "float64", 10)
        with pytest.raises(ValidationError):
            field.deserialize([[1, 2]])

    def test_pipeline(self) -> None:
        """A pipeline has the input of its first step, whatever follows, also inside a search."""
        from sklearn.decomposition import PCA
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
        from sklearn.tree import DecisionTreeClassifier

        steps = make_pipeline("passthrough", make_pipeline(PCA(2)), DecisionTreeClassifier())
        search = GridSearchCV(steps, {"decisiontreeclassifier__max_depth": [1]}, cv=2).fit(NUMBERS, LABELS)
        for model in (search, search.best_estimator_):
            assert Tensor.for_model(model).shape == (None, 3)
            assert Tensor.for_model(model).dtype == np.dtype("float64")

    def test_trees_calculate_in_single_precision(self) -> None:
        """A number that float32 does not have is rejected here, for it makes a tree fail."""
        from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, VotingClassifier
        from sklearn.tree import DecisionTreeClassifier

        kinds = (DecisionTreeClassifier(), RandomForestClassifier(2), GradientBoostingClassifier(n_estimators=2))
        for model in (*kinds, VotingClassifier([("a", DecisionTreeClassifier())])):
            field = Tensor.for_model(model.fit(NUMBERS, LABELS))
            assert field.dtype == np.dtype("float32")
            with np.errstate(over="ignore"), pytest.raises(ValueError, match="float32"):
                model.predict([[1e39, 0, 0]])
            with pytest.raises(ValidationError):
                field.deserialize([[1e39, 0, 0]])

    def test_categories_that_the_model_has_not_seen(self) -> None:
        """A model of categories gets the integers that it knows."""
        from sklearn.naive_bayes import CategoricalNB

        model = CategoricalNB().fit(NUMBERS.astype(int), LABELS)
        field = Tensor.for_model(model)
        model.predict(field.deserialize([[3, 4, 5]]))
        for row in ([4, 0, 0], [-1, 0, 0], [0.5, 0, 0]):
            with pytest.raises(ValidationError):
                field.deserialize([row])

    def test_models_of_counts(self) -> None:
        """A model that rejects negative numbers declares it, and the field rejects them first."""
        from sklearn.naive_bayes import MultinomialNB

        model = MultinomialNB().fit(NUMBERS, LABELS)
        if not hasattr(model, "__sklearn_tags__"):
            pytest.skip("this scikit-learn has no tags of estimators")
        with pytest.raises(ValidationError):
            Tensor.for_model(model).deserialize([[-1, 0, 0]])

    def test_names(self) -> None:
        """Feature names of the estimator are those of the field, and are in the source of the schema."""
        model = SimpleNamespace(n_features_in_=np.int64(2), feature_names_in_=np.array(["age", "size"], object))
        assert inputs_of(model)[0].features == ("age", "size")
        assert Tensor.for_model(model).features == ("age", "size")
        assert built(inputs_of(model)).fields["instances"].features == ("age", "size")  # type: ignore[attr-defined]

    def test_text(self) -> None:
        """Columns of text make no tensor, wherever they are encoded."""
        from sklearn.compose import ColumnTransformer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        rows = np.array([["a", 1.0], ["b", 2.0]], dtype=object)
        columns = ColumnTransformer([("n", StandardScaler(), [1]), ("t", make_pipeline(OneHotEncoder()), [0])])
        with pytest.raises(ModelInputsError, match="columns of strings"):
            Tensor.for_model(make_pipeline(columns).fit(rows))
        numbers = ColumnTransformer([("n", StandardScaler(), [1]), ("t", OneHotEncoder(), [0])])
        assert Tensor.for_model(numbers.fit(NUMBERS)).shape == (None, 3)

    def test_not_fitted(self) -> None:
        """An estimator that is not fitted, or takes text, does not know how many features it has."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.naive_bayes import GaussianNB

        for model in (GaussianNB(), TfidfVectorizer().fit(["a text"]), object()):
            with pytest.raises(ModelInputsError, match=f"{type(model).__name__} has no n_features_in_"):
                Tensor.for_model(model)


def graph(tmp_path: Path, *inputs: tuple[str, int, list[Any] | None], weights: tuple[str, ...] = ()) -> Path:
    """Write an ONNX model with these inputs."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    values = [helper.make_tensor_value_info(*each) for each in inputs]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None])
    constants = [helper.make_tensor(name, onnx.TensorProto.FLOAT, [1], [0.5]) for name in weights]
    node = helper.make_node("Identity", [inputs[0][0] if inputs else "x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "graph", values, [output], initializer=constants))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


FLOAT, INT64, STRING, BFLOAT16 = 1, 7, 8, 16


def test_onnx(tmp_path: Path) -> None:
    """A path, its string and the loaded model give the same inputs; names of dimensions are kept."""
    path = graph(tmp_path, ("x", FLOAT, ["batch", 3, 8]), ("w", FLOAT, [1]), weights=("w",))
    loaded = pytest.importorskip("onnx").load(path)
    for model in (path, str(path), loaded):
        assert inputs_of(model) == (ModelInput("x", ("batch", 3, 8), "float32"),)
    assert Tensor.for_model(path).dimensions == ("batch", None, None)


def test_onnx_dimensions_of_any_length(tmp_path: Path) -> None:
    """No length, 0, and a name that no schema can have mean any length."""
    path = graph(tmp_path, ("x", INT64, [None, 0, "batch-size", 2]))
    assert inputs_of(path)[0].shape == (None, None, None, 2)


def test_onnx_large_input(tmp_path: Path) -> None:
    """A model that needs more numbers than a field takes by default gets them."""
    assert Tensor.for_model(graph(tmp_path, ("x", FLOAT, [1, 3, 1024, 1024]))).max_elements == 3 * 1024 * 1024


def test_onnx_session(tmp_path: Path) -> None:
    """A session gives the same inputs as the file."""
    path = graph(tmp_path, ("x", FLOAT, ["batch", 4]))
    runtime = pytest.importorskip("onnxruntime")
    try:
        session = runtime.InferenceSession(path)
    except runtime.capi.onnxruntime_pybind11_state.Fail:
        pytest.skip("this onnxruntime is older than this onnx")
    assert inputs_of(session) == inputs_of(path)


def test_session_types() -> None:
    """The types of a session are those of its graph."""
    kinds = {
        "tensor(float)": "float32",
        "tensor(double)": "float64",
        "tensor(float16)": "float16",
        "tensor(bool)": "bool",
    }
    for kind, dtype in kinds.items():
        value = SimpleNamespace(name="x", type=kind, shape=["n", 2])
        session = SimpleNamespace(get_inputs=lambda value=value: [value], get_outputs=list)
        assert inputs_of(session) == (ModelInput("x", ("n", 2), dtype),)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        pytest.param([], "no inputs", id="none"),
        pytest.param([("x", STRING, [1])], "not of booleans", id="text"),
        pytest.param([("x", BFLOAT16, [1])], "not of booleans", id="bfloat16"),
        pytest.param([("x", FLOAT, [])], "without dimensions", id="scalar"),
        pytest.param([("x", FLOAT, None)], "no shape", id="no-shape"),
        pytest.param([("x", FLOAT, [1]), ("x", FLOAT, [1])], "one name", id="name-twice"),
        pytest.param([("x", FLOAT, [1]), ("y", FLOAT, [1])], "has 2 inputs", id="several"),
    ],
)
def test_onnx_without_one_tensor(tmp_path: Path, inputs: list[Any], reason: str) -> None:
    """Inputs that are not one tensor are rejected in a sentence."""
    with pytest.raises(ModelInputsError, match=reason):
        Tensor.for_model(graph(tmp_path, *inputs))


def test_onnx_sequence() -> None:
    """A sequence of tensors is not a tensor."""
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_sequence_value_info("x", FLOAT, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([], "graph", [value], []))
    with pytest.raises(ModelInputsError, match="not a tensor"):
        Tensor.for_model(model)


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, pickle.dumps([1])], ids=["empty", "bytes", "pickle"])
def test_damaged_onnx(tmp_path: Path, content: bytes) -> None:
    """A file that is not a graph is rejected with a clear message."""
    pytest.importorskip("onnx")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelInputsError, match=r"not an ONNX model|no inputs"):
        inputs_of(tmp_path / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "yaml"])
def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """The package that is missing is named."""
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "model.onnx").touch()
    (tmp_path / "MLmodel").touch()
    with pytest.raises(ModelInputsError, match=r"pip install 'flask-secure-ml\["):
        inputs_of(tmp_path / ("model.onnx" if package == "onnx" else "MLmodel"))


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.onnx", "none"])
def test_files_that_are_not_opened(tmp_path: Path, name: str) -> None:
    """A pickle is never loaded, and a missing file is an error in a sentence."""
    if name.startswith("model.") and not name.endswith("onnx"):
        (tmp_path / name).write_bytes(pickle.dumps(pytest.fail))
    pytest.importorskip("onnx")
    with pytest.raises(ModelInputsError, match="cannot be read" if "onnx" in name else "run code"):
        inputs_of(tmp_path / name)


def mlflow(tmp_path: Path, inputs: Any) -> Path:
    pytest.importorskip("yaml")
    text = inputs if isinstance(inputs, str) else json.dumps(inputs)
    quoted = text.replace("'", "''")
    (tmp_path / "MLmodel").write_text(f"flavors:\n  sklearn: {{}}\nsignature:\n  inputs: '{quoted}'\n  outputs: null\n")
    return tmp_path


def column(name: str | None, kind: Any) -> dict[str, Any]:
    return {"type": kind, "required": True} | ({} if name is None else {"name": name})


def tensor(dtype: Any, shape: Any, **members: Any) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}} | members


def test_mlflow_columns(tmp_path: Path) -> None:
    """Columns are the features of one table, in a dtype that represents all."""
    path = mlflow(tmp_path, [column("age", "integer"), column("it's", "float")])
    (found,) = inputs_of(path)
    assert (found.shape, found.dtype, found.features) == ((None, 2), "float64", ("age", "it's"))
    assert found.note == "The model wants integers in the columns 0."
    assert inputs_of(path / "MLmodel") == (found,)
    assert Tensor.for_model(path).shape == (None, 2)


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [(["boolean"] * 2, "bool"), (["integer", "long"], "int64"), (["float"] * 2, "float32"), (["double"], "float64")],
    ids=str,
)
def test_mlflow_types(tmp_path: Path, kinds: list[str], dtype: str) -> None:
    """Types of columns have their dtypes; columns may lack names."""
    (found,) = inputs_of(mlflow(tmp_path, [column(None, kind) for kind in kinds]))
    assert (found.dtype, found.features, found.note) == (dtype, (), "")


def test_mlflow_tensors(tmp_path: Path) -> None:
    """Each tensor is an input."""
    path = mlflow(tmp_path, [tensor("uint8", [-1, 28, 28], name="image"), tensor("float32", [-1], name="age")])
    assert inputs_of(path) == (ModelInput("image", (None, 28, 28), "uint8"), ModelInput("age", (None,), "float32"))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param("", id="empty"),
        pytest.param("{}", id="object"),
        pytest.param("[]", id="no-input"),
        pytest.param("[1]", id="number"),
        pytest.param('[{"type": "double", "type": "double"}]', id="duplicate-member"),
        pytest.param("[" * 50 + "]" * 50, id="deep"),
        pytest.param([column("a", "string")], id="text"),
        pytest.param([column("a", "datetime")], id="time"),
        pytest.param([column("a", ["double"])], id="type-list"),
        pytest.param([{"name": "a"}], id="no-type"),
        pytest.param([column("a", "double"), column("a", "double")], id="name-twice"),
        pytest.param([column("a", "double"), column(None, "double")], id="name-once"),
        pytest.param([{"type": "double", "name": 1}], id="name-number"),
        pytest.param([column("a", "double"), column("b", "boolean")], id="boolean-and-number"),
        pytest.param([column("a", "double"), tensor("uint8", [-1])], id="column-and-tensor"),
        pytest.param([{"type": "tensor"}], id="no-spec"),
        pytest.param([tensor("object", [-1])], id="objects"),
        pytest.param([tensor(["uint8"], [-1])], id="dtype-list"),
        pytest.param([tensor("uint8", [])], id="scalar"),
        pytest.param([tensor("uint8", [-2])], id="length-negative"),
        pytest.param([tensor("uint8", [True])], id="length-boolean"),
        pytest.param([tensor("uint8", "28")], id="shape-text"),
        pytest.param([tensor("uint8", [2**70])], id="length-float"),
    ],
)
def test_wrong_signatures(tmp_path: Path, inputs: Any) -> None:
    """A signature is read strictly."""
    with pytest.raises(ModelInputsError, match="cannot be used"):
        inputs_of(mlflow(tmp_path, inputs))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a: [", id="no-yaml"),
        pytest.param("\x00", id="control"),
        pytest.param("[" * 5000, id="deep"),
        pytest.param("flavors: {}\n", id="no-signature"),
        pytest.param("signature: null\n", id="null"),
        pytest.param("signature:\n  outputs: '[]'\n", id="no-inputs"),
        pytest.param("signature:\n  inputs: null\n", id="inputs-null"),
        pytest.param("signature:\n  inputs: []\n", id="inputs-list"),
        pytest.param('signature:\n  inputs: "\\uD800"\n', id="surrogate"),
        pytest.param("signature: {inputs: '[]'}\nsignature: {inputs: '[]'}\n", id="signature-twice"),
        pytest.param("? [signature]\n: {inputs: '[]'}\n", id="key-list"),
        pytest.param("signature: !!python/object/apply:os.abort []\n", id="object"),
        pytest.param("signature:\n  inputs: !!python/name:os.abort ''\n", id="object-inside"),
    ],
)
def test_wrong_mlmodel(tmp_path: Path, text: str) -> None:
    """A file without a signature is rejected with a clear message, and no object in it is constructed."""
    pytest.importorskip("yaml")
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ModelInputsError, match="cannot be used"):
        inputs_of(tmp_path)


def test_huge_mlmodel(tmp_path: Path) -> None:
    """A file over the limit is not parsed."""
    with (tmp_path / "MLmodel").open("wb") as file:
        file.truncate((4 << 20) + 1)
    with pytest.raises(ModelInputsError, match="more than"):
        inputs_of(tmp_path)


def test_source() -> None:
    """The source is a schema with a field for each input."""
    source = schema_source(
        (
            ModelInput("image", ("batch", 3, None), "uint8"),
            ModelInput(None, (None, 2), "int64", ("age", "size"), 0, (3, 4), "A note."),
        )
    )
    assert source.splitlines()[-4:] == [
        "class ModelInputs(Schema):",
        '    image = Tensor(("batch", 3, None), dtype="uint8")',
        "    # A note.",
        '    instances = Tensor((None, 2), dtype="int64", features=["age", "size"], minimum=0, maximum=[3, 4])',
    ]


@pytest.mark.parametrize(
    "name",
    [
        "class",
        "fields",
        "context",
        "load",
        "Tensor",
        "Meta",
        "_x",
        "a b",
        "größe",
        "",
        "1",
        "\u202e",
        'x"\n\\',
        "'",
    ],
)
def test_source_with_odd_names(name: str) -> None:
    """A field keeps any input name in requests, with a valid attribute name in the schema."""
    schema = built((ModelInput(name, (None,), "float64"), ModelInput("input_0", (1,), "bool")))
    loaded = schema.load({name: [1.5], "input_0": [True]})
    assert [value.tolist() for value in loaded.values()] == [[1.5], [True]]


@pytest.mark.parametrize(
    "name",
    [
        "a\nimport os; os.abort()\n#",
        "\r\n",
        "\u2028x",
        "\u202e",
        "x" * 500,
        "\\",
        '"])\nimport os; os.abort()\n#',
        "'])\nimport os; os.abort()\n#",
        '"',
        "'\"",
        "{name}",
    ],
)
def test_source_cannot_be_injected(name: str) -> None:
    """A name of a feature stays inside of its string."""
    inputs = (ModelInput(None, (None, 1), "float64", (name,)),)
    source = schema_source(inputs)
    (line,) = source.split("class ModelInputs(Schema):\n")[1].splitlines()
    assert source.isascii()
    assert line.startswith('    instances = Tensor((None, 1), dtype="float64", features=[')
    assert built(inputs).fields["instances"].features == (name,)  # type: ignore[attr-defined]
