"""Files of the directory that workers share, of which some cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from flask_secure_ml.observe.metrics import Exposition, Facts, Metrics


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory, with the files of two workers."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for pid in (1, 2):
        values = MmapedDict(str(tmp_path / f"counter_{pid}.db"))
        values.write_value(mmap_key("seen", "seen_total", ["by"], ["x"], "Seen."), 1.0, 0.0)
        values.close()
    return tmp_path


@pytest.fixture
def exposition(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Exposition:
    """The exposition of the workers."""
    with monkeypatch.context() as patch:
        # The metrics of this process are in its memory.
        patch.delenv("PROMETHEUS_MULTIPROC_DIR")
        metrics = Metrics()
    return Exposition(metrics, Facts())


WHOLE = 'seen_total{by="x"} 2.0\n'


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:2],
        lambda whole: whole[:60],
        lambda whole: b"\x0f" * 100,
        lambda whole: whole.replace(b'["', b"[}"),
        lambda whole: whole.replace(b'"by"', b"\xff\xff\xff\xff"),
        lambda whole: whole.replace(b'{"by": "x"}', b'["by", "x"]'),
    ],
    ids=["short", "cut off", "binary", "no JSON", "no UTF-8", "other values"],
)
def test_a_damaged_file(
    folder: Path, exposition: Exposition, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    """The others are served, and the log names it once."""
    bad = folder / "counter_3.db"
    bad.write_bytes(damage((folder / "counter_1.db").read_bytes()))
    for _ in range(2):
        assert WHOLE in exposition.text().body.decode()
    (line,) = (each for each in caplog.records if "cannot be read" in each.message)
    assert str(bad) in line.message
    bad.unlink()
    assert WHOLE in exposition.text().body.decode()
    assert "can be read again" in caplog.text


def test_a_worker_that_begins(folder: Path, exposition: Exposition, caplog: pytest.LogCaptureFixture) -> None:
    """Its file is empty for a moment, which is no fault."""
    (folder / "counter_3.db").touch()
    with caplog.at_level(logging.INFO):
        assert WHOLE in exposition.text().body.decode()
    assert caplog.records == []


def test_a_file_that_is_deleted_meanwhile(
    folder: Path, exposition: Exposition, caplog: pytest.LogCaptureFixture
) -> None:
    """A link that leads nowhere stands for it."""
    (folder / "counter_3.db").symlink_to(folder / "gone.db")
    assert WHOLE in exposition.text().body.decode()
    assert caplog.records == []


def test_a_directory_with_a_pattern_in_its_name(
    tmp_path: Path, exposition: Exposition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets are no pattern of files."""
    inner = tmp_path / "[metrics]"
    inner.mkdir()
    for file in tmp_path.glob("*.db"):
        file.rename(inner / file.name)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(inner))
    assert WHOLE in exposition.text().body.decode()
