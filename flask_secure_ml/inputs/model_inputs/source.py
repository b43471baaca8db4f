"""The Python source of a schema for the inputs of a model, to be pasted into an app.

Names of a model come from a file: in the source they are ASCII, quoted and escaped.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Sequence
from typing import Any

from marshmallow import Schema

from . import ModelInput

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
    """Return the name of the attribute: the input's own, unless Python or a schema uses it for something else."""
    if name is None:
        return _UNNAMED
    if name.isascii() and name.isidentifier() and not _is_used(name):
        return name
    attribute = f"input_{position}"
    while attribute in names:
        attribute += "_"
    return attribute


def _is_used(name: str) -> bool:
    # Marshmallow 4 has no attribute ``context``, marshmallow 3 has.
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
