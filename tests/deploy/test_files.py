"""Writing generated files: no manual change is lost."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from flask_secure_ml.deploy.files import MANIFEST, EditedError, FileState, Output

WANTED = {"nginx/nginx.conf": "one\n", "nginx/run.sh": "#!/bin/sh\n"}


def output(root: Path, wanted: dict[str, str] | None = None) -> Output:
    return Output(root, WANTED if wanted is None else wanted, frozenset({"nginx"}))


def states(found: Output) -> dict[str, str]:
    return {each.path: each.state for each in found.states()}


def test_written_once(tmp_path: Path) -> None:
    """The second run changes no file."""
    assert states(output(tmp_path)) == dict.fromkeys(WANTED, "missing")
    assert [each.state for each in output(tmp_path).write(force=False)] == ["missing", "missing"]
    assert {path: (tmp_path / path).read_text() for path in WANTED} == WANTED
    assert output(tmp_path).write(force=False) == []
    assert (tmp_path / "nginx/run.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "nginx/nginx.conf").stat().st_mode & 0o777 == 0o644


def test_an_older_version_is_replaced(tmp_path: Path) -> None:
    """It was generated before, so no manual work is lost."""
    output(tmp_path).write(force=False)
    changed = WANTED | {"nginx/nginx.conf": "two\n"}
    assert states(output(tmp_path, changed))["nginx/nginx.conf"] == "differs"
    assert output(tmp_path, changed).write(force=False) == [FileState("nginx/nginx.conf", "differs")]
    assert (tmp_path / "nginx/nginx.conf").read_text() == "two\n"


@pytest.mark.parametrize("known", [True, False], ids=["edited by hand", "of another program"])
def test_an_edit_is_kept(tmp_path: Path, known: bool) -> None:
    """Unless ``force`` is given; then the file is replaced."""
    if known:
        output(tmp_path).write(force=False)
    edited = tmp_path / "nginx/nginx.conf"
    edited.parent.mkdir(exist_ok=True)
    edited.write_text("mine\n")
    with pytest.raises(EditedError, match=r"nginx/nginx\.conf"):
        output(tmp_path).write(force=False)
    assert edited.read_text() == "mine\n"
    assert known or not (tmp_path / "nginx/run.sh").exists()
    output(tmp_path).write(force=True)
    assert edited.read_text() == "one\n"


def test_what_is_not_generated_any_more(tmp_path: Path) -> None:
    """It is removed unless it was edited; files of other targets and of the user stay."""
    output(tmp_path).write(force=False)
    Output(tmp_path, {"envoy/envoy.yaml": "x\n"}, frozenset({"envoy"})).write(force=False)
    (tmp_path / "nginx/overlay.conf").write_text("mine\n")
    fewer = {"nginx/nginx.conf": "one\n"}
    assert states(output(tmp_path, fewer)) == {"nginx/nginx.conf": "same", "nginx/run.sh": "stale"}
    (tmp_path / "nginx/run.sh").write_text("mine\n")
    with pytest.raises(EditedError):
        output(tmp_path, fewer).write(force=False)
    output(tmp_path, fewer).write(force=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [MANIFEST, "envoy/envoy.yaml", "nginx/nginx.conf", "nginx/overlay.conf"]


def test_diff(tmp_path: Path) -> None:
    """It shows what would be created, changed and removed."""
    output(tmp_path).write(force=False)
    lines = "".join(output(tmp_path, {"nginx/nginx.conf": "two\n", "nginx/new": "new\n"}).diff())
    assert "-one\n+two\n" in lines
    assert "--- /dev/null\n+++ b/nginx/new\n" in lines
    assert "+++ /dev/null\n" in lines


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"nginx/\\u0000": "x", "nginx/\\ud800": "y"}',
        '{"../../etc/passwd": "x", "/etc/passwd": "y"}',
    ],
)
def test_a_manifest_that_is_not_ours(tmp_path: Path, content: str) -> None:
    """Files outside the directory are not touched, and files that differ count as edited."""
    (tmp_path / MANIFEST).write_text(content)
    outside = tmp_path / "outside"
    root = tmp_path / "a/b"
    root.mkdir(parents=True)
    outside.write_text("kept")
    (root / MANIFEST).write_text('{"nginx/../../../outside": "x"}')
    output(root).write(force=True)
    assert outside.read_text() == "kept"
    output(tmp_path).write(force=False)
    assert states(output(tmp_path)) == dict.fromkeys(WANTED, "same")


def test_symbolic_links(tmp_path: Path) -> None:
    """The target of a link is never read, removed or overwritten, whatever a manifest says."""
    root, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret\n")
    found = output(root)
    found.write(force=False)
    (root / "nginx/linked").symlink_to(outside)
    (root / "nginx/nginx.conf").unlink()
    (root / "nginx/nginx.conf").symlink_to(outside / "file")
    manifest = json.loads((root / MANIFEST).read_text())
    digest = hashlib.sha256(b"secret\n").hexdigest()
    named = {"nginx/linked/file": digest, "nginx/nginx.conf": digest}
    (root / MANIFEST).write_text(json.dumps(manifest | named))
    found = output(root)
    assert states(found) == {"nginx/nginx.conf": "edited", "nginx/run.sh": "same"}
    assert "secret" not in "".join(found.diff())
    with pytest.raises(EditedError):
        found.write(force=False)
    found.write(force=True)
    assert (outside / "file").read_text() == "secret\n"
    assert states(output(root)) == dict.fromkeys(WANTED, "same")
