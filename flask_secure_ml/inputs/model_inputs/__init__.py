"""The inputs that a model describes: the shape, the dtype and the features of each.

=====================================  ========================================================================
a fitted scikit-learn estimator         ``n_features_in_``, ``feature_names_in_`` and the tags of its first step
an ONNX model, or a path to ``.onnx``   the inputs of the graph; the package ``onnx`` reads the file
an ``onnxruntime.InferenceSession``     its inputs
the directory of an MLflow model        the signature in its ``MLmodel``; ``mlflow`` is not needed
=====================================  ========================================================================

No file is unpickled, and no code of a model runs. Names of a model come from a file, so they are written as escaped
ASCII strings in the Python source of a schema, which is meant to be pasted into an app.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from marshmallow import Schema

# The default of Tensor. A model that needs more for one row gets a higher limit.
_MAX_ELEMENTS = 1_000_000


class ModelInputsError(ValueError):
    """The model does not describe its inputs, or has inputs that no tensor field can load."""


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a model.

    :param name: the name of the input; None if it has none.
    :param shape: the length of each dimension; a name or None for any length.
    :param dtype: the name of the dtype: booleans, integers or floats of up to 64 bits.
    :param features: the names of the positions in the last dimension; empty if the model does not have them.
    :param minimum: the minimum value, if the model declares it.
    :param maximum: the maximum value of each feature, if the model declares it.
    :param note: a sentence for the author of the schema, or an empty string.
    """

    name: str | None
    shape: tuple[int | str | None, ...]
    dtype: str
    features: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: tuple[float, ...] | None = None
    note: str = ""

    def tensor_options(self) -> dict[str, Any]:
        """Return the arguments of a :class:`~flask_secure_ml.inputs.Tensor`."""
        options: dict[str, Any] = {"shape": self.shape, "dtype": self.dtype}
        options |= {"features": self.features} if self.features else {}
        options |= {name: bound for name in ("minimum", "maximum") if (bound := getattr(self, name)) is not None}
        needed = prod(length for length in self.shape if isinstance(length, int))
        return options | ({"max_elements": needed} if needed > _MAX_ELEMENTS else {})


def inputs_of(model: Any) -> tuple[ModelInput, ...]:
    """Return the inputs of a model, at least one.

    :param model: a model of one of the types listed above.
    :raises ModelInputsError: the model is of another type, not fitted or corrupt, has no signature, or has inputs of
        strings, objects, sequences or unknown dimensions.
    """
    from . import onnx, sklearn

    if isinstance(model, (str, Path)):
        return _of_path(Path(model))
    if hasattr(model, "graph") and hasattr(model, "SerializeToString"):
        return _checked(onnx.of_graph(model.graph))
    if hasattr(model, "get_inputs") and hasattr(model, "get_outputs"):
        return _checked(onnx.of_session(model))
    return _checked([sklearn.of_estimator(model)])


def only_input_of(model: Any) -> ModelInput:
    """Return the only input of a model.

    :raises ModelInputsError: as for :func:`inputs_of`, or the model has several inputs.
    """
    first, *others = inputs_of(model)
    if others:
        raise ModelInputsError(
            f"the model has {len(others) + 1} inputs, so each needs a field: "
            "flask secure-ml model schema prints such a schema"
        )
    return first


def _of_path(path: Path) -> tuple[ModelInput, ...]:
    from . import mlflow, onnx

    try:
        if path.is_dir() or path.name == "MLmodel":
            return _checked(mlflow.of_file(path / "MLmodel" if path.is_dir() else path))
        if path.suffix.lower() == ".onnx":
            return _checked(onnx.of_file(path))
    except OSError as error:
        raise ModelInputsError(f"{error.filename} cannot be read: {error.strerror}") from None
    raise ModelInputsError(
        f"{path} is neither an .onnx file nor the directory of an MLflow model. Files of scikit-learn are pickles, "
        "which run code when they are loaded, so they are not opened here: load yours in your own module, and name it"
    )


def _checked(inputs: Sequence[ModelInput]) -> tuple[ModelInput, ...]:
    if not inputs:
        raise ModelInputsError("the model has no inputs")
    names = [each.name for each in inputs]
    if len(set(names)) < len(names):
        raise ModelInputsError("the model has two inputs of one name")
    return tuple(inputs)


_HEAD = "from marshmallow import Schema\n\nfrom flask_secure_ml.inputs import Tensor\n\n\nclass ModelInputs(Schema):\n"
_IMPORTED = ("Schema", "Tensor")
_UNNAMED = "instances"


def schema_source(inputs: Sequence[ModelInput]) -> str:
    """Return the source of a schema with a field for each input."""
    names = [each.name for each in inputs]
    return _HEAD + "\n".join(
        line for position, each in enumerate(inputs) for line in _lines(each, _attribute(each.name, position, names))
    )


def _attribute(name: str | None, position: int, names: Sequence[str | None]) -> str:
    """Return the attribute name for an input: its own name, unless that is reserved by Python or the schema."""
    if name is None:
        return _UNNAMED
    if name.isascii() and name.isidentifier() and not _is_used(name):
        return name
    attribute = f"input_{position}"
    while attribute in names:
        attribute += "_"
    return attribute


def _is_used(name: str) -> bool:
    # marshmallow 3 has an attribute ``context``, which marshmallow 4 does not have.
    return keyword.iskeyword(name) or name in (*_IMPORTED, "context") or name[0] == "_" or hasattr(Schema(), name)


def _lines(each: ModelInput, attribute: str) -> Iterator[str]:
    if each.note:
        yield f"    # {each.note}"
    options = each.tensor_options()
    arguments = [_shape(options.pop("shape")), *(f"{name}={_literal(value)}" for name, value in options.items())]
    if attribute != each.name and each.name is not None:
        arguments.append(f"data_key={_literal(each.name)}")
    yield f"    {attribute} = Tensor({', '.join(arguments)})"


def _shape(lengths: Sequence[int | str | None]) -> str:
    inner = ", ".join(map(_literal, lengths))
    return f"({inner},)" if len(lengths) == 1 else f"({inner})"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return ascii(value).replace("'", '"') if isinstance(value, str) and value.isidentifier() else ascii(value)
