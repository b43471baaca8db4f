"""HDF5 files are walked: whatever reads other files, or declares more than there may be, is found."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flask_secure_ml.model_files import UnsafeModel, file_digest, find_code, hdf5_bytes, load_verified
from flask_secure_ml.model_files.hdf5_bytes import HDF5
from model_samples import sample

LIMIT = 1 << 24
LAYOUTS = [("earliest", "v108"), ("v108", "v108"), ("v110", "v110"), "latest"]
SECRET = np.arange(4.0)


def kinds(data: bytes, limit: int = LIMIT) -> set[str]:
    return {finding.kind for finding in find_code(data, limit)}


def never(_: object) -> None:
    pytest.fail("the loader was called")


def patched(name: str, *changes: tuple[bytes, bytes]) -> bytes:
    """Return a sample in which each of these bytes, which occur once, are others."""
    data = sample(name)
    for old, new in changes:
        assert data.count(old) == 1, (old, data.count(old))
        data = data.replace(old, new)
    return data


def h5py_or_skip() -> Any:
    return pytest.importorskip("h5py")


def file_of(folder: Path, fill: Callable[[Any], object], **options: Any) -> bytes:
    with h5py_or_skip().File(folder / "made.h5", "w", **options) as file:
        fill(file)
    return (folder / "made.h5").read_bytes()


def storage(file: Any, secret: Path) -> None:
    file.create_dataset("x", (4,), "f8", external=[(str(secret), 0, 32)])


def link(file: Any, secret: Path) -> None:
    file["x"] = h5py_or_skip().ExternalLink(str(secret.with_suffix(".h5")), "/a")


def virtual(file: Any, secret: Path) -> None:
    layout = h5py_or_skip().VirtualLayout((4,), "f8")
    layout[:] = h5py_or_skip().VirtualSource(str(secret.with_suffix(".h5")), "a", (4,))
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("many", [0, 30, 400], ids=["alone", "among 30", "among 400"])
@pytest.mark.parametrize("reads", [storage, link, virtual], ids=["storage", "link", "virtual dataset"])
def test_what_reads_another_file(tmp_path: Path, layout: Any, many: int, reads: Callable[[Any, Path], None]) -> None:
    """A file through which h5py reads another is rejected, in every layout and however its group is stored."""
    if reads is virtual and "v108" in layout:
        layout = None
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET.tobytes())
    with h5py_or_skip().File(secret.with_suffix(".h5"), "w") as file:
        file["a"] = SECRET

    def fill(file: Any) -> None:
        for index in range(many):
            file[f"before/{index}"] = index
        reads(file.require_group("before"), secret)

    data = file_of(tmp_path, fill, libver=layout)
    with h5py_or_skip().File(tmp_path / "made.h5") as file:
        assert file["before/x"][...].tolist() == SECRET.tolist()
    assert kinds(data) == {"external"}
    with pytest.raises(UnsafeModel, match=r"read unverified files.*pass allow=\['external'\]"):
        load_verified(tmp_path / "made.h5", loader=never, sha256=file_digest(data))


def everything(file: Any) -> None:
    """Write the structures of packages that save models, and more."""
    h5py = h5py_or_skip()
    file["a/b/c/x"] = np.arange(10.0)
    file["hard"], file["soft"] = file["a/b/c/x"], h5py.SoftLink("/a/b/c/x")
    file.create_dataset("chunks", data=np.zeros((99, 9)), chunks=(10, 3), maxshape=(None, None), compression="gzip")
    file.create_dataset("filters", data=np.zeros(999), chunks=(99,), shuffle=True, fletcher32=True, compression="lzf")
    file.create_dataset("growing", data=np.zeros(9), chunks=(3,), maxshape=(None,))
    file.create_dataset("text", data=["a", "bb"], dtype=h5py.string_dtype())
    file["type"] = np.dtype([("a", "f4"), ("b", "S5"), ("c", "f8", (3,))])
    file.create_dataset("of the type", (4,), dtype=file["type"])
    file.create_dataset("lists", (3,), dtype=h5py.vlen_dtype("i4"))
    file.create_dataset("names", data=[0, 1], dtype=h5py.enum_dtype({"a": 0, "b": 1}))
    file["reference"] = np.array([file["chunks"].ref], dtype=h5py.ref_dtype)
    file["scalar"], file["empty"], file["complex"] = 3.0, h5py.Empty("f4"), np.zeros(3, "c8")
    file.attrs.update({"none": h5py.Empty("f4"), "list": ["x", "y"], "flag": True, "number": 1j})
    many = file.create_group("many", track_order=True)
    for index in range(300):
        many[f"{index:04}"] = np.float32(index)
        many.attrs[f"{index:04}"] = np.arange(index % 40)
    for name in list(many)[::3]:
        del many[name]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("options", [{}, {"userblock_size": 1024}, {"track_order": True}], ids=str)
def test_what_is_whole_in_itself(tmp_path: Path, layout: Any, options: dict[str, Any]) -> None:
    """Everything else that h5py writes is data."""
    assert kinds(file_of(tmp_path, everything, libver=layout, **options)) == set()


@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=str)
def test_attributes_too_large_for_a_header(tmp_path: Path, layout: Any) -> None:
    """An attribute that lies in a block of its own is examined like any other."""

    def fill(file: Any, config: str) -> None:
        for index in range(20):
            file.attrs[f"{index}"] = np.zeros(20_000)
        file.attrs["model_config"] = np.bytes_(config + " " * 100_000)

    dense, harmful = '{"class_name": "Absolute", "config": {}}', '{"class_name": "Lambda", "config": {}}'
    assert kinds(file_of(tmp_path, lambda file: fill(file, dense), libver=layout)) == set()
    assert kinds(file_of(tmp_path, lambda file: fill(file, harmful), libver=layout)) == {"keras-lambda"}


def test_dataset_of_terabytes() -> None:
    """A file of kilobytes that declares terabytes is opaque, without allocating memory of that size."""
    data = sample("opaque: HDF5 of terabytes in chunks")
    tracemalloc.start()
    (finding,) = find_code(data, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (finding.kind, finding.why) == ("opaque", "its datasets declare more than max_bytes")
    assert peak < 8_000_000


def test_datasets_may_declare_max_bytes(tmp_path: Path) -> None:
    """All datasets together may declare as much as the file might have, and one that has two names counts once."""

    def fill(file: Any) -> None:
        file.create_dataset("a", (500,), "f8", chunks=(50,))
        file.create_dataset("b", (500,), "f8", chunks=(50,))
        file["c"] = file["b"]

    data = file_of(tmp_path, fill)
    assert kinds(data, max(8_000, len(data))) == set()
    assert kinds(file_of(tmp_path, lambda file: file.create_dataset("a", (4000,), "f8", chunks=(50,))), 31_999) == {
        "opaque"
    }


OLD, NEW = "external: HDF5 with external storage, oldest", "external: HDF5 with external storage, newest"


def test_root_that_says_it_is_a_link() -> None:
    """The root group is examined whatever its entry says; h5py reads the other file through each of these."""
    data = sample(OLD)
    for kind in (0, 1, 2):
        assert "external" in kinds(data[:72] + bytes([kind, 0, 0, 0]) + data[76:])
    assert kinds(data[:72] + b"\3\0\0\0" + data[76:]) == {"opaque"}


def test_base_address_that_is_not_where_the_file_begins() -> None:
    """Addresses that different libraries would count from different positions are not followed."""
    data = sample(OLD)
    assert kinds(data[:24] + b"\1" + data[25:]) == {"opaque"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param(OLD, [(b"TREE\0", b"TREE\1")], id="another tree"),
        pytest.param(OLD, [(b"SNOD", b"SNOX")], id="no symbol table"),
        pytest.param(NEW, [(b"\x89HDF\r\n\x1a\n\3", b"\x89HDF\r\n\x1a\n\4")], id="a superblock of the future"),
    ],
)
def test_what_is_not_understood(name: str, changes: list[tuple[bytes, bytes]]) -> None:
    """Unknown structures are opaque."""
    assert kinds(patched(name, *changes)) == {"opaque"}


@pytest.mark.parametrize("message", [9, 0x0F, 0x14, 0x18, 0x19, 0x40, 0xFF])
def test_message_that_is_not_known(message: int) -> None:
    """Shared messages, multi-file drivers, metadata cache images and new messages are not accepted."""
    data = sample(NEW)
    position = data.index(b"\x07", data.index(b"OHDR", data.index(b"OHDR") + 4))
    while data[position + 1 : position + 3] == b"\0\0":
        position = data.index(b"\x07", position + 1)
    assert kinds(data) == {"external"}
    assert kinds(data[:position] + bytes([message]) + data[position + 1 :]) == {"opaque"}


def test_compressed_links() -> None:
    """Compressed links and attributes could hide names from a search."""
    data = sample("external: HDF5 with an external link among many, newest")
    heap = data.index(b"FRHP")
    assert kinds(data[: heap + 7] + b"\x08" + data[heap + 8 :]) == {"opaque"}


@pytest.mark.parametrize(
    "name", [OLD, NEW, "data: HDF5 of many types", "data: HDF5 of many datasets and attributes, newest"]
)
def test_cut_or_looping_anywhere(name: str) -> None:
    """A file that is cut short, or whose addresses lead back, ends the walk."""
    data = sample(name)
    for position in range(8, len(data), max(1, len(data) // 100)):
        assert kinds(data[:position]) <= {"opaque", "external", "keras-lambda"}
        for address in (bytes(8), (48).to_bytes(8, "little"), b"\xff" * 8):
            assert kinds(data[:position] + address + data[position + 8 :]) <= {"opaque", "external", "keras-lambda"}


def built(*messages: tuple[int, bytes], flags: int = 0) -> bytes:
    """Return a file whose root has these messages, by their types."""
    body = b"".join(bytes([kind]) + len(data).to_bytes(2, "little") + bytes([flags]) + data for kind, data in messages)
    root = b"OHDR\2\2" + len(body).to_bytes(4, "little") + body + bytes(4)
    undefined, size = b"\xff" * 8, (48 + len(root)).to_bytes(8, "little")
    return HDF5 + b"\2\x08\x08\0" + bytes(8) + undefined + size + (48).to_bytes(8, "little") + bytes(4) + root


def space(*dimensions: int) -> bytes:
    return bytes([2, len(dimensions), 0, 1]) + b"".join(each.to_bytes(8, "little") for each in dimensions)


def attribute(name: bytes, datatype: bytes, dataspace: bytes, value: bytes) -> bytes:
    sizes = b"".join(len(each).to_bytes(2, "little") for each in (name, datatype, dataspace))
    return b"\3\0" + sizes + b"\0" + name + datatype + dataspace + value


FLOAT = b"\x11\x20\x3f\0\x08\0\0\0" + bytes(12)
STRING, VARIABLE = b"\x13\0\0\0\x08\0\0\0", b"\x19\x01\0\0\x10\0\0\0" + FLOAT
UNDEFINED = b"\xff" * 8
COMPACT = (8, b"\3\0\0\0")
TERABYTES = (1, space(1 << 40))
OLD_CHUNKS = b"\2\2\2" + bytes(5) + UNDEFINED + b"\0\0\0\1\x08\0\0\0"
NEW_CHUNKS = b"\4\2\0\2\4" + b"\0\0\0\1\x08\0\0\0" + b"\1"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([], set(), id="nothing"),
        pytest.param([(1, space(3)), (3, FLOAT), COMPACT], set(), id="dataset"),
        pytest.param([TERABYTES, (3, FLOAT), COMPACT], {"opaque"}, id="compact"),
        pytest.param(
            [TERABYTES, (3, FLOAT), (8, b"\1\1\1" + bytes(5) + UNDEFINED + bytes(4))], {"opaque"}, id="version 1"
        ),
        pytest.param([(1, space(1)), (3, FLOAT), TERABYTES, COMPACT], {"opaque"}, id="two sizes"),
        pytest.param([(1, space(1 << 32, 1 << 32)), (3, FLOAT), COMPACT], {"opaque"}, id="product beyond 64 bits"),
        pytest.param([(1, space(1)), (3, FLOAT), (8, OLD_CHUNKS)], {"opaque"}, id="chunk of version 2"),
        pytest.param([(1, space(1)), (3, FLOAT), (8, NEW_CHUNKS)], {"opaque"}, id="chunk of version 4"),
        pytest.param([(1, space(1)), (3, FLOAT), (8, b"\6\0")], {"opaque"}, id="layout of the future"),
        pytest.param([(1, space(1)), (3, FLOAT), (8, b"\3\4")], {"opaque"}, id="class of the future"),
        pytest.param(
            [(1, space(1)), (3, FLOAT), (8, b"\3\1" + bytes(8) + b"\0\1" + bytes(6))], {"opaque"}, id="behind the end"
        ),
        pytest.param([(1, b"\3" + bytes(3))], {"opaque"}, id="dataspace of the future"),
        pytest.param([(1, b"\2\2\0\1" + bytes(8))], {"opaque"}, id="dataspace cut short"),
        pytest.param([(3, b"\x47\2\0\0\x08\0\0\0")], {"external"}, id="reference of the newer kind"),
        pytest.param([(3, b"\x17\0\0\0\x08\0\0\0")], set(), id="reference within the file"),
        pytest.param([(6, b"\1\x08\x40\1x\3\0\0o\0")], {"external"}, id="external link"),
        pytest.param([(6, b"\1\x08\xff\1x\0\0")], {"external"}, id="link of a kind that an app defines"),
        pytest.param([(6, b"\1\x08\2\1x\0\0")], {"opaque"}, id="link of no kind"),
        pytest.param([(6, b"\1\x08\1\1x\1\0y")], set(), id="soft link"),
        pytest.param([(6, b"\1\0\1x" + (48).to_bytes(8, "little"))], set(), id="link back to the root"),
        pytest.param([(6, b"\2\0\1x" + bytes(8))], {"opaque"}, id="link of the future"),
        pytest.param([(6, b"\1\0\xffx")], {"opaque"}, id="name behind the end"),
        pytest.param([(7, bytes(16))], {"external"}, id="external files"),
        pytest.param(
            [(0x10, (62).to_bytes(8, "little") + (8).to_bytes(8, "little"))], {"opaque"}, id="continued nowhere"
        ),
        pytest.param([(0x10, UNDEFINED + bytes(8))], {"opaque"}, id="continued at no address"),
        pytest.param([(0x0C, attribute(b"n\0", FLOAT, space(), bytes(8)))], set(), id="attribute"),
        pytest.param([(0x0C, attribute(b"n\0", FLOAT, space(2), bytes(8)))], {"opaque"}, id="attribute cut short"),
        pytest.param(
            [(0x0C, attribute(b"n\0", FLOAT, space(1 << 40), bytes(8)))], {"opaque"}, id="attribute of terabytes"
        ),
        pytest.param([(0x0C, b"\4" + bytes(8))], {"opaque"}, id="attribute of the future"),
        pytest.param([(0x0C, attribute(b"x\0", STRING, space(), b"(lp0\n.\0\0"))], {"pickle"}, id="pickle"),
        pytest.param([(0x0C, attribute(b"x\0", STRING, space(), b"A text.\0"))], set(), id="text with a full stop"),
        pytest.param([(0x0C, attribute(b"PSEUDOATOM\0", STRING, space(), b"object\0\0"))], {"pickle"}, id="objects"),
        pytest.param([(0x0C, attribute(b"FLAVOR\0", STRING, space(), b"Object\0\0"))], {"pickle"}, id="old objects"),
        pytest.param([(0x0C, attribute(b"FLAVOR\0", STRING, space(), b"numpy\0\0\0"))], set(), id="arrays"),
        pytest.param(
            [(0x0C, attribute(b"PSEUDOATOM\0", VARIABLE, space(), bytes(16)))], {"pickle"}, id="atom elsewhere"
        ),
        pytest.param(
            [(0x0C, attribute(b"model_config\0", VARIABLE, space(), bytes(16)))],
            {"opaque", "keras-lambda"},
            id="config nowhere",
        ),
        pytest.param([(0x15, b"\1" + bytes(20))], {"opaque"}, id="attribute info of the future"),
        pytest.param([(2, b"\0\0" + bytes(16))], {"opaque"}, id="links in no heap"),
        pytest.param([(2, b"\0\0" + UNDEFINED * 2)], set(), id="no links elsewhere"),
        pytest.param([(0x11, bytes(16))], {"opaque"}, id="group in no tree"),
    ],
)
def test_messages(messages: list[tuple[int, bytes]], expected: set[str]) -> None:
    """Each message is handled according to the specification, and unspecified ones are opaque."""
    assert kinds(built(*messages)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"\3\2" + (48).to_bytes(8, "little"), {"opaque"}, id="object without a type"),
        pytest.param(b"\3\1" + bytes(8), {"opaque"}, id="table of shared messages"),
        pytest.param(b"\2\1" + bytes(8), {"opaque"}, id="older table"),
        pytest.param(b"\1\0" + bytes(14), {"opaque"}, id="oldest"),
        pytest.param(b"\3\2" + UNDEFINED, {"opaque"}, id="no object"),
    ],
)
def test_shared_datatype(content: bytes, expected: set[str]) -> None:
    """Only datatypes may be shared objects of the file."""
    assert kinds(built((3, content), flags=2)) == expected
    assert kinds(built((1, content), flags=2)) == {"opaque"}


def test_number_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk ends after so many messages."""
    monkeypatch.setattr(hdf5_bytes, "MAX_MESSAGES", 100)
    assert kinds(built(*[(0, b"")] * 100)) == set()
    (finding,) = find_code(built(*[(0, b"")] * 101), LIMIT)
    assert finding.why == "it has too many objects to examine"


def test_many_links(tmp_path: Path) -> None:
    """An index of several levels, of names and of the order of creation, is read to its last record."""

    def fill(file: Any) -> None:
        for index in range(3000):
            file[f"{index}"] = h5py_or_skip().SoftLink("/nowhere")
        file["last"] = h5py_or_skip().ExternalLink("other.h5", "/a")

    assert kinds(file_of(tmp_path, fill, libver="latest", track_order=True)) == {"external"}
