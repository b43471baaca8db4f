"""Files that run code when loaded are detected by their content; others are not reported."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import pickle
import sys
import tracemalloc
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.model_files import KINDS, find_code
from flask_secure_ml.model_files.pickles import MODULES
from model_samples import DATA, LIMIT, cases, sample, samples

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
WRAPPERS: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, bz2.compress, lzma.compress, zlib.compress]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


class Harmful:
    """Runs code when it is unpickled."""

    def __init__(self, *before: Any) -> None:
        self.before = before

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return (pytest.fail, ("a pickle was loaded", self.before))


def kinds(data: bytes) -> set[str]:
    return {finding.kind for finding in find_code(data, LIMIT)}


@pytest.mark.parametrize(("kind", "data"), cases())
def test_sample(kind: str, data: bytes) -> None:
    """Each sample of ``tests/corpus/model_files`` is of its kind and of no other; data has none."""
    assert kinds(data) == ({kind} - {DATA})


def test_every_kind_has_samples() -> None:
    """No kind that can be allowed is without a sample."""
    assert {kind for kind, _ in samples().values()} == {*KINDS, DATA}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("pickle: gzip", "possibly compressed (in 'gzip')", id="compressed"),
        pytest.param("torch: torch", "(in 'archive/data.pkl')", id="member"),
        pytest.param("torch: tar.gz", "(in 'gzip > a/b.pkl')", id="member of something compressed"),
        pytest.param("opaque: LZ4", "it is compressed with LZ4", id="compression that is not known"),
        pytest.param("opaque: encrypted member", "(in 'x'): it is encrypted", id="encrypted"),
        pytest.param("opaque: five times gzip", "it is nested too deeply", id="nested"),
        pytest.param("opaque: npz cut short", "it is damaged", id="damaged"),
    ],
)
def test_finding_says_where_and_why(name: str, text: str) -> None:
    """A finding as a string has the kind, the location, and why it could not be examined."""
    assert text in str(next(find_code(sample(name), LIMIT)))


def test_name_with_control_characters() -> None:
    """The name of a member is escaped in the text, so that it cannot write lines into a log."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a\nb\x1b[31m", pickle.dumps(1))
    text = str(next(find_code(archive.getvalue(), LIMIT)))
    assert text.isprintable()
    assert r"a\nb\x1b[31m" in text


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("wrap", WRAPPERS, ids=["plain", "gzip", "bzip2", "xz", "zlib"])
def test_pickle_of_every_protocol(protocol: int, wrap: Callable[[bytes], bytes]) -> None:
    """A pickle is found in every protocol, also compressed, and is not loaded to find it."""
    assert kinds(wrap(pickle.dumps(Harmful(), protocol))) == {"pickle"}


@given(value=VALUES, protocol=st.sampled_from(PROTOCOLS), harmful=st.booleans(), wrap=st.sampled_from(WRAPPERS))
def test_fuzz_pickles_are_found(value: Any, protocol: int, harmful: bool, wrap: Callable[[bytes], bytes]) -> None:
    """Any pickled object, in any protocol and compression, is detected as a pickle."""
    data = pickle.dumps([value, Harmful(value)] if harmful else value, protocol)
    assert "pickle" in kinds(wrap(data))


@given(value=VALUES, protocol=st.sampled_from(PROTOCOLS), junk=st.binary(min_size=1, max_size=20))
def test_fuzz_damage_after_the_call_hides_nothing(value: Any, protocol: int, junk: bytes) -> None:
    """A pickle that is broken behind the opcode that calls is found: the call comes first."""
    assert "pickle" in kinds(pickle.dumps(Harmful(value), protocol)[:-1] + junk)


@given(
    name=st.sampled_from(sorted(samples())),
    place=st.floats(0, 1, exclude_max=True),
    change=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_fuzz_damaged_samples(name: str, place: float, change: bytes, cut: bool) -> None:
    """Any damage to a sample gives findings or none, without other errors or running code."""
    data = sample(name)
    position = int(place * len(data))
    damaged = data[:position] + change + (b"" if cut else data[position + len(change) :])
    assert kinds(damaged) <= set(KINDS)


@given(
    shape=st.lists(st.integers(0, 3), max_size=3), code=st.sampled_from(["f2", "<f8", ">i4", "?", "c16", "U3", "V2"])
)
def test_fuzz_arrays_are_data(shape: list[int], code: str) -> None:
    """Arrays of numbers and strings are data, alone and in an archive."""
    array, single, archive = np.zeros(shape, code), io.BytesIO(), io.BytesIO()
    np.save(single, array)
    np.savez_compressed(archive, array)
    assert kinds(single.getvalue()) | kinds(archive.getvalue()) == set()


def test_objects_of_current_packages() -> None:
    """Files written by current joblib and cloudpickle are detected."""
    joblib, cloudpickle = pytest.importorskip("joblib"), pytest.importorskip("cloudpickle")
    for compress in (0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)):
        stream = io.BytesIO()
        joblib.dump({"weights": np.arange(1000.0), "harm": Harmful()}, stream, compress=compress)
        assert kinds(stream.getvalue()) == {"pickle"}
    assert kinds(cloudpickle.dumps(lambda value: value)) == {"pickle"}


@pytest.mark.parametrize("wrap", WRAPPERS[1:], ids=["gzip", "bzip2", "xz", "zlib"])
def test_expansion_is_capped(wrap: Callable[[bytes], bytes]) -> None:
    """A compressed archive is expanded up to the limit; a larger one is opaque."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a", bytes(10_000_000))
    data = wrap(archive.getvalue())
    tracemalloc.start()
    (finding,) = find_code(data, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (finding.kind, finding.why) == ("opaque", "it expands to more than max_bytes")
    assert peak < 20_000_000  # bzip2 alone needs 4 MB, and xz 8


def test_argument_of_exabytes() -> None:
    """No memory is allocated for a pickle that declares a string of exabytes."""
    tracemalloc.start()
    assert kinds(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x0fabc") == set()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_endless_opcodes() -> None:
    """The walk ends after so many possible opcodes that it can only be a pickle."""
    assert kinds(b"N" * 1_000_000) == {"pickle"}


CALL = b"cbuiltins\nprint\n(S'called'\ntR."


def zlib_with(window: int) -> bytes:
    engine = zlib.compressobj(wbits=window)
    return engine.compress(CALL) + engine.flush()


def lzma_with(dictionary: int, **options: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary} | options]
    return lzma.compress(CALL, format=lzma.FORMAT_ALONE, filters=filters)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"NNb0" + CALL, id="a state of None"),
        pytest.param(b"(lNb0" + CALL, id="a state of None for a list"),
        pytest.param(b"N0" * 10_000 + CALL, id="twenty thousand opcodes before it"),
        pytest.param(b"(" * 20_001 + CALL, id="twenty thousand marks before it"),
        pytest.param(b"V" + b"a" * (1 << 20) + b"\n0" + CALL, id="a line of a megabyte before it"),
        pytest.param(b"S'" + b"a" * (3 << 20) + b"'\n0" + CALL, id="a line of three megabytes before it"),
        *(pytest.param(zlib_with(window), id=f"zlib, window {window}") for window in range(9, 16)),
        pytest.param(lzma_with(1 << 16, lc=0), id="lzma, no literal context"),
        pytest.param(lzma_with(3 << 15, lc=1, lp=2, pb=0), id="lzma, other positions"),
    ],
)
def test_calls_are_found_behind_what_an_unpickler_passes_over(data: bytes) -> None:
    """Opcodes without effect, or that take long, do not hide a call."""
    assert kinds(data) == {"pickle"}


class _Looks:
    """Records that an unpickler looked up an existing object, or called it."""

    def __init__(self) -> None:
        self.called = False

    def find_class(self, module: str, name: str) -> Any:
        with contextlib.suppress(ImportError, ValueError):
            self.called = self.called or find_spec(module.split(".", maxsplit=1)[0]) is not None
        return self._call

    def _call(self, *_: object) -> None:
        self.called = True


class _Recorder(_Looks, pickle.Unpickler):
    """The unpickler in C."""

    def __init__(self, data: bytes) -> None:
        _Looks.__init__(self)
        pickle.Unpickler.__init__(self, io.BytesIO(data))


class _PythonRecorder(_Looks, pickle._Unpickler):
    """The unpickler in Python, from which joblib derives; it forgives other things."""

    def __init__(self, data: bytes) -> None:
        _Looks.__init__(self)
        pickle._Unpickler.__init__(self, io.BytesIO(data))


@given(
    st.lists(
        st.sampled_from(
            [
                *(b"N", b"0", b"1", b"2", b"(", b"l", b"]", b"}", b"b", b"R", b"t", b")", b"e", b"a", b"u", b"s", b"o"),
                *(b"d", b"\x81", b"\x85", b"\x8f", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94", b"q\x00", b"h\x00"),
                *(
                    b"K\x01",
                    b"I1\n",
                    b"Va\n",
                    b"S'a'\n",
                    b"p1\n",
                    b"g1\n",
                    b"cos\nsystem\n",
                    b"cnobody_has_it\nx\n",
                    b"cos\nsystem",
                    b"ios\nsystem\n",
                    b"ios\nsystem",
                    b"\x88",
                    b"\x8c\x02os",
                    b"\x80\x04",
                ),
            ]
        ),
        max_size=14,
    ).map(b"".join)
)
def test_fuzz_no_call_is_missed(data: bytes) -> None:
    """Every import or call of a real unpickler is detected beforehand."""
    for reader in (_Recorder(data), _PythonRecorder(data)):
        with contextlib.suppress(Exception):
            reader.load()
        if reader.called:
            assert list(find_code(data, 1 << 20))


def test_archive_that_is_a_pickle_too() -> None:
    """A zip archive begins with a persistent id, which some loaders accept; the call after it is detected."""
    archive = io.BytesIO(b"")
    with zipfile.ZipFile(archive, "w") as opened:
        # Of a fixed time: that of now may hold a line break, which ends the persistent id.
        opened.writestr(zipfile.ZipInfo("\n0" + CALL.decode() + "json"), b"{}")
    assert kinds(archive.getvalue()) == {"pickle"}


def test_modules_are_not_imported_to_find_them() -> None:
    """A module is found by its name, whether it is installed or not, and without importing it."""
    assert kinds(b"cidlelib.idle\nx\n") == {"pickle"}
    assert "idlelib" not in sys.modules


@pytest.mark.parametrize("name", ["lass", "nobody_has_it"])
def test_verdict_does_not_depend_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Installed and imported modules do not change the result for a table that names them."""
    table = f"c{name}\nsetosa\n0\n1\n".encode()
    assert kinds(table) == set()
    (tmp_path / f"{name}.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_spec(name)
    assert kinds(table) == set()
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert kinds(table) == set()


@pytest.mark.parametrize("name", ["torch", "sklearn.base", "sitecustomize", "__main__", "cPickle", "_winapi", "winreg"])
def test_import_of_a_module_that_may_be_missing(name: str) -> None:
    """An import alone counts for the standard library of any system and for packages that serve models."""
    assert kinds(f"c{name}\nx\n\xff".encode("latin-1")) == {"pickle"}


@pytest.mark.parametrize("name", ["nobody_has_it", "nobody-has-it", "2nobody", "nobody.has_it"])
def test_call_of_a_module_that_may_be_missing(name: str) -> None:
    """A call of an import is a pickle, whatever the module."""
    assert kinds(f"c{name}\nx\n)R".encode()) == {"pickle"}


def test_standard_library_is_listed() -> None:
    """The list has every public name of this Python, and those of Python 2 that an unpickler translates."""
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    assert {*public, *(name.partition(".")[0] for name in IMPORT_MAPPING)} <= MODULES
