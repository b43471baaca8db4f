"""Input profiles: fitted to arrays, written, read strictly, and made into fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from marshmallow import ValidationError
from numpy.typing import NDArray

from flask_secure_ml.inputs import Base64Tensor, Profile, ProfileError, Tensor
from flask_secure_ml.inputs.load_context import collect_out_of_range
from flask_secure_ml.inputs.profiles.file import MAX_BYTES
from flask_secure_ml.inputs.profiles.fit import Column, columns_of, fit

CORPUS = Path(__file__).parents[2] / "corpus" / "profiles"
TABLE = np.array([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0], [4.0, 40.0]])


def profile(table: NDArray[Any] = TABLE, **options: Any) -> Profile:
    return fit(columns_of(table), **options)


def rejected(field: Tensor, value: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        field.deserialize(value)
    return caught.value.messages


def test_what_is_learned() -> None:
    """Each feature has its range, observed quantiles, the share of rows without a value, and whether it varies."""
    table = np.array([[1.0, 7.0], [2.0, np.nan], [3.0, 7.0], [9.0, 7.0]])
    found = fit(columns_of(table, ["speed", "gear"]), quantiles=(0.25, 0.5, 1))
    speed, gear = found.features
    assert (found.rows, found.quantiles) == (4, (0.25, 0.5, 1.0))
    assert (speed.name, speed.dtype, speed.minimum, speed.maximum) == ("speed", "float64", 1.0, 9.0)
    assert (speed.quantiles, speed.missing, speed.constant) == ((1.0, 2.0, 9.0), 0.0, False)
    assert (gear.name, gear.minimum, gear.maximum, gear.missing, gear.constant) == ("gear", 7.0, 7.0, 0.25, True)


def test_one_dimension_is_one_feature() -> None:
    """An array of shape (rows,) is a column."""
    assert [feature.maximum for feature in profile(np.array([1, 5, 3])).features] == [5]


def test_byte_order_and_strides_do_not_matter() -> None:
    """A big-endian array in Fortran order has the profile of the same numbers."""
    assert profile(np.asfortranarray(TABLE.astype(">f8"))) == profile()


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        pytest.param(np.zeros((2, 2, 2)), "1 or 2 dimensions", id="three-dimensions"),
        pytest.param(np.zeros((0, 2)), "no value", id="no-row"),
        pytest.param(np.zeros((2, 0)), "no feature", id="no-column"),
        pytest.param(np.full((2, 1), np.nan), "no value", id="nothing-but-missing"),
        pytest.param(np.array([[1.0], [np.inf]]), "infinite", id="infinite"),
        pytest.param(np.array([[-np.inf], [1.0]]), "infinite", id="minus-infinite"),
        pytest.param(np.array([["a"]]), "something other", id="text"),
        pytest.param(np.array([[None]]), "something other", id="objects"),
        pytest.param(np.array([[1j]]), "something other", id="complex"),
        pytest.param(np.array([["2024-01-01"]], "M8[D]"), "something other", id="times"),
    ],
)
def test_data_without_a_profile(table: NDArray[Any], reason: str) -> None:
    """Data without a range is rejected with a clear message."""
    with pytest.raises(ProfileError, match=reason):
        profile(table)


@pytest.mark.parametrize(
    "quantiles", [(0.5, 0.5), (0.9, 0.1), (-0.1,), (1.1,), (float("nan"),), [n / 200 for n in range(102)]]
)
def test_wrong_quantiles(quantiles: tuple[float, ...]) -> None:
    """Probabilities rise from 0 to 1."""
    with pytest.raises(ProfileError, match="quantiles must be"):
        profile(quantiles=quantiles)


def test_one_name_for_each_column() -> None:
    """Names that do not fit the columns are rejected."""
    with pytest.raises(ProfileError, match="one name"):
        columns_of(TABLE, ["a"])


def test_saved_and_loaded(tmp_path: Path) -> None:
    """A file contains the whole profile, including integers beyond 2**53."""
    table = np.array([[-(2**63), 0], [2**63 - 1, 1]])
    profile(table).save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == profile(table)


def test_save_fails(tmp_path: Path) -> None:
    """A path that cannot be written is named."""
    with pytest.raises(ProfileError, match="cannot be written"):
        profile().save(tmp_path / "none" / "profile.json")


@pytest.mark.parametrize("path", sorted((CORPUS / "accept").glob("*.json")), ids=lambda path: path.stem)
def test_profiles_that_are_read(path: Path) -> None:
    """A field can be made of each."""
    assert Tensor(profile=path).shape == (None, 2)


@pytest.mark.parametrize("path", sorted((CORPUS / "refuse").glob("*.json")), ids=lambda path: path.stem)
def test_corrupt_profiles(path: Path) -> None:
    """A profile is read strictly: any deviation is an error that names the file."""
    with pytest.raises(ProfileError, match=f"{path.name} is not an input profile: "):
        Profile.load(path)


def test_no_such_profile(tmp_path: Path) -> None:
    """A missing file is an error in one sentence."""
    with pytest.raises(ProfileError, match="cannot be read"):
        Profile.load(tmp_path / "profile.json")


def test_huge_profile(tmp_path: Path) -> None:
    """A file over the limit is not parsed."""
    with (tmp_path / "profile.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ProfileError, match="more than"):
        Profile.load(tmp_path / "profile.json")


def test_field_has_the_range_of_each_feature() -> None:
    """A value outside the range of its own feature is rejected, at its position."""
    field = Tensor(profile=profile())
    assert (field.shape, field.dtype) == ((None, 2), np.dtype("float64"))
    assert field.deserialize([[4, 10], [0, 40]]).tolist() == [[4, 10], [0, 40]]
    assert rejected(field, [[0, 10], [4.5, 9.5]]) == {1: {1: ["Must be at least 10."]}}
    assert rejected(field, [[4.5, 10]]) == {0: {0: ["Must be at most 4."]}}


def test_bounds_of_quantiles() -> None:
    """The outer quantiles leave the extremes out."""
    field = Tensor(profile=profile(quantiles=(0.5, 0.75)), bounds="quantiles")
    assert field.deserialize([[1, 30]]).tolist() == [[1, 30]]
    rejected(field, [[0, 30]])
    rejected(field, [[1, 40]])


def test_margin() -> None:
    """A margin widens both bounds by a share of the span."""
    field = Tensor(profile=profile(), margin=0.5)
    assert field.deserialize([[-2, 55]]).tolist() == [[-2, 55]]
    rejected(field, [[-2.1, 55]])
    rejected(field, [[-2, 55.1]])


def test_margin_of_large_integers_is_exact() -> None:
    """Widening never loses a value to rounding."""
    least, most = 2**62 + 1, 2**62 + 3
    field = Tensor(profile=profile(np.array([[least], [most]])), margin=1e-9)
    assert field.deserialize([[least - 1], [most + 1]]).tolist() == [[least - 1], [most + 1]]
    rejected(field, [[least - 2]])


def test_margin_beyond_what_floats_hold() -> None:
    """A span that overflows is not a bound, and no error."""
    field = Tensor(profile=profile(np.array([[-1.7e308], [1.7e308]])), margin=0.5)
    assert field.deserialize([[1.79e308]]).tolist() == [[1.79e308]]


@pytest.mark.parametrize(("outside", "value"), [("clip", 4.0), ("report", 5.0)])
def test_outside(outside: Literal["clip", "report"], value: float) -> None:
    """Values outside can be clipped or accepted; both are reported."""
    with collect_out_of_range() as found:
        loaded = Tensor(profile=profile(), outside=outside).deserialize([[5, 10]], "rows")
    assert loaded.tolist() == [[value, 10]]
    assert [(note.pointers, note.clipped) for note in found] == [(("/rows/0/0",), outside == "clip")]


def test_other_options_of_the_field() -> None:
    """Explicit options override those of the profile, and the class may be a subclass."""
    field = Base64Tensor(profile=profile(), dtype="float32", max_items=3, data_key="rows")
    assert isinstance(field, Base64Tensor)
    assert (field.dtype.name, field.max_items, field.data_key) == ("float32", 3, "rows")


@pytest.mark.parametrize(
    "options", [{"bounds": "mean"}, {"margin": -1}, {"margin": float("nan")}, {"outside": "ignore"}], ids=str
)
def test_wrong_definition(options: dict[str, Any]) -> None:
    """A wrong word or number is an error where the schema is written."""
    with pytest.raises(ValueError, match=r"bounds must|margin must|outside must"):
        Tensor(profile=profile(), **options)


def test_no_profile() -> None:
    """Profile options without a profile are an error, and so is a tensor with neither profile nor shape."""
    for options in ({"bounds": "quantiles"}, {"margin": 0.1}):
        with pytest.raises(ValueError, match="require a profile"):
            Tensor(shape=(None, 2), **options)
    with pytest.raises(TypeError, match="a shape or a profile"):
        Tensor()


def test_quantiles_that_are_not_there() -> None:
    """Bounds of quantiles need two."""
    with pytest.raises(ValueError, match="fewer than two"):
        Tensor(profile=profile(quantiles=(0.5,)), bounds="quantiles")


def test_booleans() -> None:
    """All-boolean features make a boolean tensor; with numbers, booleans are 0 and 1."""
    flags = np.array([[True, False], [False, False]])
    field = Tensor(profile=profile(flags))
    with pytest.raises(ValueError, match="outside must"):
        Tensor(profile=profile(flags), outside="report")
    assert field.deserialize([[True, True]]).dtype == np.bool_
    both = Tensor(profile=fit([Column("flag", flags[:, 0]), Column("size", np.array([1.5, 2.5]))]))
    assert both.deserialize([[1, 2]]).tolist() == [[1, 2]]
    rejected(both, [[2, 2]])


def test_short_floats_pass_as_they_are_written() -> None:
    """0.7 from JSON and the float32 nearest to it are both within the range of float32 data, on either side of it."""
    table = np.array([[0.7, 0.1], [0.1, 0.7]], dtype=np.float32)
    field = Tensor(profile=profile(table))
    assert field.deserialize([[0.7, 0.1], [0.1, 0.7]]).tolist() == table.tolist()
    assert field.deserialize(table).tolist() == table.tolist()
    rejected(field, [[float(np.nextafter(np.float32(0.7), np.float32(1))), 0.1]])


TABLES = st.sampled_from(["bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "float64"]).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        st.tuples(st.integers(1, 8), st.integers(1, 4)),
        elements=arrays.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)


@given(TABLES, st.sampled_from([0.0, 0.1, 3.0]))
def test_fuzz_a_profile_accepts_its_data(table: NDArray[Any], margin: float) -> None:
    """The data of a profile are accepted as an array and as lists, whatever the dtype and the margin."""
    field = Tensor(profile=profile(table), margin=margin)
    assert np.array_equal(field.deserialize(table), table)
    assert np.array_equal(field.deserialize(table.tolist()), table)


@given(TABLES, st.lists(st.floats(0, 1), max_size=4, unique=True).map(sorted))
def test_fuzz_a_profile_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, table: NDArray[Any], shares: Any
) -> None:
    """Any fitted profile can be saved, and is equal when loaded."""
    path = tmp_path_factory.getbasetemp() / "profile.json"
    profile(table, quantiles=shares).save(path)
    assert Profile.load(path) == profile(table, quantiles=shares)


@given(st.lists(TABLES.map(lambda table: table[0, :1]), min_size=2, max_size=4))
def test_fuzz_features_of_several_dtypes(values: list[NDArray[Any]]) -> None:
    """A row of features of different dtypes is accepted by its own profile, in a common dtype."""
    field = Tensor(profile=fit([Column(str(place), value) for place, value in enumerate(values)]))
    row = np.concatenate(values).astype(field.dtype)
    assert np.array_equal(field.deserialize(row[None]), row[None])


@given(
    st.binary(max_size=200)
    | st.sampled_from(sorted((CORPUS / "accept").glob("*.json"))).flatmap(
        lambda path: st.integers(0, path.stat().st_size).map(
            lambda cut: path.read_bytes()[:cut] + b"1" + path.read_bytes()[cut:]
        )
    )
)
def test_fuzz_damaged_profiles(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """A damaged file is still a valid profile, or raises the one error."""
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(raw)
    try:
        Profile.load(path)
    except ProfileError as error:
        assert "damaged.json" in str(error)  # noqa: PT017  most are rejected, and some are not
