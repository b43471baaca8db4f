"""References to secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_secure_ml.secrets import Secret

SECRET = "s" * 32


@pytest.mark.parametrize("reference", ["hunter2", "env:", "file:", "vault:x", "", ":x", "ENV:X"])
def test_only_references(reference: str) -> None:
    """A literal is refused, and never repeated."""
    with pytest.raises(ValueError, match="must be a reference") as caught:
        Secret(reference)
    assert "hunter2" not in str(caught.value)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """env:NAME is read when it is used."""
    secret = Secret("env:THE_SECRET")
    monkeypatch.setenv("THE_SECRET", SECRET)
    assert secret.read() == SECRET.encode()
    assert SECRET not in repr(secret)


def test_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A mounted secret is rotated by replacing the file."""
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    secret = Secret(f"file:{path}")
    assert secret.read() == SECRET.encode()
    (tmp_path / "new").write_text("n" * 40)
    (tmp_path / "new").replace(path)
    assert secret.read() == b"n" * 40
    assert "n" * 40 not in repr(secret)


def test_short_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than 32 bytes is no secret; the message names the reference, not the value."""
    monkeypatch.setenv("SHORT", "correct horse")
    for reference, words in (("env:SHORT", "holds 13"), (f"file:{tmp_path}/none", "cannot be read")):
        with pytest.raises(ValueError, match=words) as caught:
            Secret(reference).read()
        assert "horse" not in str(caught.value)
