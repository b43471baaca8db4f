"""A model is loaded when somebody vouched for exactly these bytes, and when that runs no code."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flask_secure_ml.model_files import (
    KINDS,
    UnreadableModel,
    UnsafeModel,
    UnverifiedModel,
    directory_digest,
    find_code,
    load_verified,
    load_verified_directory,
    loading,
    verified_copy,
)
from model_samples import DATA, LIMIT, cases, sample


def never(_: object) -> None:
    pytest.fail("the loader was called")


def written(folder: Path, data: bytes, name: str = "model") -> tuple[Path, str]:
    path = folder / name
    path.write_bytes(data)
    return path, sha256(data).hexdigest()


@pytest.mark.parametrize(("kind", "data"), cases())
def test_what_runs_code_is_loaded_only_when_allowed(tmp_path: Path, kind: str, data: bytes) -> None:
    """With the right digest, data is loaded; code only if exactly its kind is allowed."""
    path, digest = written(tmp_path, data)
    if kind != DATA:
        others = [name for name in KINDS if name != kind]
        with pytest.raises(UnsafeModel, match=rf"pass allow=\['{kind}'\]"):
            load_verified(path, loader=never, sha256=digest, max_bytes=LIMIT, allow=others)
    allow = [] if kind == DATA else [kind]
    assert load_verified(path, loader=io.BytesIO.read, sha256=digest, max_bytes=LIMIT, allow=allow) == data


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({}, "it has no expected digest or signature.*flask secure-ml model digest", id="none"),
        pytest.param({"sha256": "0" * 64}, "digest is", id="of other content"),
        pytest.param({"sha256": ""}, "not a SHA-256 digest", id="empty"),
    ],
)
def test_unverified_model_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], words: str
) -> None:
    """Without the right digest the file is not parsed, neither by the loader nor for its format."""
    monkeypatch.setattr(loading, "find_code", never)
    path, _ = written(tmp_path, b"model")
    with pytest.raises(UnverifiedModel, match=words) as caught:
        load_verified(path, loader=never, **arguments)
    assert (caught.value.path, str(caught.value)[-1]) == (str(path), ".")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"sha256": "0" * 64, "signature": "a.sig"}, id="signature of anybody"),
        pytest.param({"sha256": "0" * 64, "signed_by": "a.pub"}, id="key without a signature"),
        pytest.param({"sha256": "0" * 64, "allow": "pickle"}, id="allow as text"),
        pytest.param({"sha256": "0" * 64, "allow": ["pickle", "jolib"]}, id="unknown name"),
    ],
)
@pytest.mark.parametrize("load", [load_verified, load_verified_directory])
def test_contradicting_arguments(load: Callable[..., object], arguments: dict[str, Any]) -> None:
    """Arguments that contradict each other are a mistake in the program, whatever the file is."""
    with pytest.raises(
        ValueError, match=r"signature and signed_by must be used together|allow must be a list of these names"
    ):
        load("missing", loader=never, **arguments)


def test_digest_file(tmp_path: Path) -> None:
    """A digest file is read when a path is given."""
    path, digest = written(tmp_path, b"[1]")
    sums = tmp_path / "model.sha256"
    sums.write_text(f"{digest}  model\n")
    assert load_verified(path, loader=json.load, sha256=sums) == [1]
    path.write_bytes(b"[2]")
    with pytest.raises(UnverifiedModel, match="instead of"):
        load_verified(path, loader=never, sha256=sums)


def test_digest_file_is_never_looked_for(tmp_path: Path) -> None:
    """A digest file is read only if it is named: an attacker who can replace the model can replace it too."""
    path, digest = written(tmp_path, b"[1]")
    (tmp_path / "model.sha256").write_text(f"{digest}  model\n")
    with pytest.raises(UnverifiedModel, match="no expected digest"):
        load_verified(path, loader=never)


def test_file_swapped_after_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader gets the verified bytes, not those of a later file."""
    path, digest = written(tmp_path, b"[1]")
    look = find_code

    def swap(*arguments: Any) -> Any:
        path.unlink()
        path.write_bytes(pickle.dumps("swapped"))
        return look(*arguments)

    monkeypatch.setattr(loading, "find_code", swap)
    assert load_verified(path, loader=json.load, sha256=digest) == [1]
    assert path.read_bytes() == pickle.dumps("swapped")


def test_link_swapped(tmp_path: Path) -> None:
    """The target of a link is verified like any other file."""
    first, digest = written(tmp_path, b"[1]", "first")
    second, _ = written(tmp_path, b"[2]", "second")
    link = tmp_path / "model"
    link.symlink_to(first)
    assert load_verified(link, loader=json.load, sha256=digest) == [1]
    link.unlink()
    link.symlink_to(second)
    with pytest.raises(UnverifiedModel):
        load_verified(link, loader=never, sha256=digest)


def test_cap(tmp_path: Path) -> None:
    """A file above max_bytes is rejected, whatever its digest."""
    path, digest = written(tmp_path, b"[1]")
    with pytest.raises(UnreadableModel, match="Raise max_bytes"):
        load_verified(path, loader=never, sha256=digest, max_bytes=2)


def test_expansion_above_the_cap(tmp_path: Path) -> None:
    """A file that expands to more than max_bytes is rejected."""
    path, digest = written(tmp_path, sample("torch: zip in gzip"))
    with pytest.raises(UnsafeModel, match="expands to more than max_bytes"):
        load_verified(path, loader=never, sha256=digest, max_bytes=path.stat().st_size + 1)


def test_what_a_loader_raises_is_not_caught(tmp_path: Path) -> None:
    """The exception of a loader describes its problem best."""
    path, digest = written(tmp_path, b"[1")
    with pytest.raises(json.JSONDecodeError):
        load_verified(path, loader=json.load, sha256=digest)


def test_several_findings(tmp_path: Path) -> None:
    """All that was found must be allowed."""
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=True, a=np.array([None]))
    path, digest = written(tmp_path, pickle.dumps(1) + archive.getvalue())
    for allow in (["pickle"], ["numpy-objects"]):
        with pytest.raises(UnsafeModel):
            load_verified(path, loader=never, sha256=digest, allow=allow)
    assert load_verified(path, loader=lambda _: True, sha256=digest, allow=["pickle", "numpy-objects"])


def saved_model(folder: Path, **files: bytes) -> tuple[Path, str]:
    for name, content in files.items():
        (folder / "saved" / "variables").mkdir(parents=True, exist_ok=True)
        (folder / "saved" / name.replace("__", "/")).write_bytes(content)
    return folder / "saved", directory_digest({name.replace("__", "/"): data for name, data in files.items()})


def test_directory(tmp_path: Path) -> None:
    """A loader of a directory gets the verified files; a copy of them serves one that only takes a path."""
    path, digest = saved_model(tmp_path, graph=b"{}", variables__a=b"[1]")

    def load(files: Any) -> Any:
        path.rename(tmp_path / "elsewhere")
        with verified_copy(files) as copy:
            return sorted(files), json.loads((copy / "variables" / "a").read_bytes())

    assert load_verified_directory(path, loader=load, sha256=digest) == (["graph", "variables/a"], [1])


def test_directory_in_a_digest_file(tmp_path: Path) -> None:
    """A digest file names a directory as it names a file."""
    path, digest = saved_model(tmp_path, graph=b"{}")
    (tmp_path / "saved.sha256").write_text(f"{digest}  saved\n")
    assert load_verified_directory(path, loader=dict, sha256=tmp_path / "saved.sha256") == {"graph": b"{}"}


def test_directory_that_was_changed(tmp_path: Path) -> None:
    """A file more, or without its content, is another directory."""
    path, digest = saved_model(tmp_path, graph=b"{}", variables__a=b"[1]")
    (path / "more").touch()
    with pytest.raises(UnverifiedModel):
        load_verified_directory(path, loader=never, sha256=digest)


def test_directory_with_a_pickle(tmp_path: Path) -> None:
    """The error names the file that runs code."""
    path, digest = saved_model(tmp_path, graph=b"{}", variables__a=pickle.dumps(1))
    with pytest.raises(UnsafeModel, match="saved/variables/a: it is a pickle"):
        load_verified_directory(path, loader=never, sha256=digest)
    assert load_verified_directory(path, loader=len, sha256=digest, allow=["pickle"]) == 2


def test_directory_given_as_a_file(tmp_path: Path) -> None:
    """The error of the one function names the other."""
    with pytest.raises(UnreadableModel, match="load_verified_directory"):
        load_verified(tmp_path, loader=never, sha256="0" * 64)
