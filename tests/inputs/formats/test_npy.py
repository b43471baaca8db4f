"""npy files: files written by numpy are read, in every byte order and memory order; the corpus has rejected bodies."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from marshmallow import Schema

from bodies import DTYPES, a_guard, a_request, an_exchange, as_npy, loaded
from flask_secure_ml.errors import PayloadTooLarge, ValidationFailed
from flask_secure_ml.inputs import Base64Tensor, Tensor

NPY = "application/x-npy"
GUARD = a_guard(["npy"])
ROWS = np.array([[1, 2, 3], [4, 5, 6]])


class Predict(Schema):
    instances = Tensor((None, 3))


def load(array: np.ndarray[Any, Any], schema: type[Schema] = Predict) -> Any:
    return loaded(GUARD, schema, as_npy(array)[0], NPY).payload["instances"]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", ">f2", "<i8", ">i8", "|i1", ">u2"])
def test_what_numpy_writes_is_read(version: tuple[int, int], order: Any, dtype: str) -> None:
    """Each version, order of dimensions and order of bytes gives the same array, in the field's own form."""
    file = BytesIO()
    np.lib.format.write_array(file, np.asarray(ROWS, dtype, order=order), version)
    found = loaded(GUARD, Predict, file.getvalue(), NPY).payload["instances"]
    assert found.tolist() == ROWS.tolist()
    assert found.dtype == np.float32
    assert found.flags.carray


@pytest.mark.parametrize("name", DTYPES)
def test_the_field_decides_which_dtypes_fill_it(name: str) -> None:
    """Integers are accepted for floats, but not floats for integers, and booleans only for booleans."""
    for wanted in ("float64", "int64", "bool"):
        schema = Schema.from_dict({"instances": Tensor((None, 3), wanted)})
        kinds = {"f": "fiu", "i": "iu", "b": "b"}[np.dtype(wanted).kind]
        array = (ROWS > 2).astype(name) if "b" in (np.dtype(name).kind, kinds) else ROWS.astype(name)
        if np.dtype(name).kind in kinds:
            assert load(array, schema).tolist() == array.tolist()
        else:
            with pytest.raises(ValidationFailed):
                load(array, schema)


def test_no_copy_is_made_of_what_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose claim is over the limit is rejected before numpy sees it."""
    monkeypatch.setattr(np, "frombuffer", lambda *_, **__: pytest.fail("it was read"))
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    with pytest.raises(PayloadTooLarge) as caught:
        GUARD.check(a_request(file.getvalue(), NPY), an_exchange(body=Predict))
    assert "over the limit of 80000 bytes" in caught.value.reason


def test_the_cap_is_the_largest_that_passes() -> None:
    """80,000 bytes of the array, its header not counted."""
    schema = Schema.from_dict({"instances": Tensor((None,), "uint8")})
    assert load(np.zeros(80_000, "u1"), schema).size == 80_000
    with pytest.raises(PayloadTooLarge):
        load(np.zeros(80_001, "u1"), schema)


def test_a_base64_tensor_takes_a_file_too() -> None:
    """It is a tensor in JSON that is written in another way, so the same array fills it."""
    schema = Schema.from_dict({"instances": Base64Tensor((None, 3))})
    assert load(ROWS, schema).tolist() == ROWS.tolist()


def test_a_view_may_write_to_its_array() -> None:
    """The array is not a window into a read-only body."""
    found = load(ROWS.astype("f4"))
    found[0, 0] = 9
    assert found[0, 0] == 9


def test_a_fault_points_to_the_field() -> None:
    """A dtype that no field takes is reported at the field that would have got it."""
    with pytest.raises(ValidationFailed) as caught:
        load(np.array([["secret"]]))
    message = "Not an array of booleans, integers or floats."
    assert caught.value.members["errors"] == [{"pointer": "/instances", "message": message}]
