"""Every attack on a log is detected with external checkpoints; those undetected without them are listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import audit_attacks
from audit_attacks import Scene, snapshot
from audit_logs import Site, append, kinds, stream_of
from flask_secure_ml.testing import FakeClock

CASES = json.loads((Path(__file__).parents[2] / "corpus/audit/attacks.json").read_text())
MAX_AGE = {"silence_until_now": 600}
RETENTION = {"postdated_retirement": 30}


@pytest.fixture
def scene(tmp_path: Path, clock: FakeClock) -> Scene:
    return Scene(Site(tmp_path, clock))


@pytest.mark.parametrize("outside", [True, False], ids=["outside", "alone"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['by']}-{case['attack']}")
def test_attacks(scene: Scene, case: dict[str, Any], outside: bool) -> None:
    """Each attack changes the log, and is found, or is one of those that need the external checkpoints."""
    assert scene.site.verify(outside=outside).ok
    before = snapshot(scene.site.folder) + str(scene.site.clock.now())
    kept = scene.site.outside.read_text()
    getattr(audit_attacks, case["attack"])(scene)
    assert snapshot(scene.site.folder) + str(scene.site.clock.now()) != before
    if case["by"] == "outsider":
        assert scene.site.outside.read_text().startswith(kept)
    options = {"max_age": MAX_AGE.get(case["attack"]), "retention_days": RETENTION.get(case["attack"])}
    report = scene.site.verify(outside=outside, **options)
    wanted = case["outside" if outside else "alone"]
    assert (wanted in kinds(report)) if wanted else report.ok, [str(each) for each in report.findings]


def test_the_first_bad_record_is_named(scene: Scene) -> None:
    """By its stream and its number."""
    audit_attacks.edit(scene)
    (found,) = scene.site.verify().faults()
    assert (found.stream, found.seq) == (stream_of(scene.one), audit_attacks.OLD)
    assert str(found) == f"tampered: changed: stream {found.stream} record 10: its code is wrong"


def test_every_bit_of_a_record_is_protected(scene: Scene) -> None:
    """A change of any byte of a covered line is detected."""
    lines = scene.lines(scene.one)
    for position in range(len(lines[audit_attacks.OLD])):
        edited = bytearray(lines[audit_attacks.OLD])
        edited[position] ^= 1
        scene.put(scene.one, [*lines[: audit_attacks.OLD], bytes(edited), *lines[audit_attacks.OLD + 1 :]])
        assert not scene.site.verify().ok, position


def test_a_torn_line_is_a_crash(scene: Scene) -> None:
    """A process that was killed while it wrote leaves the beginning of a line, which no checkpoint covers."""
    path = scene.site.files(scene.one)[0]
    path.write_bytes(path.read_bytes()[:-20])
    report = scene.site.verify()
    assert report.ok
    assert [(each.kind, each.seq) for each in report.findings] == [("torn", 29)]


def test_a_checkpoint_that_nobody_signed(scene: Scene, tmp_path: Path) -> None:
    """External checkpoints count only with a signature of the app."""
    text = scene.site.outside.read_text()
    scene.site.outside.write_text(text.replace("tests/audit\n4\n", "tests/audit\n3\n"))
    report = scene.site.verify()
    assert report.ok
    assert [each.kind for each in report.findings] == ["bad_checkpoint"]
    scene.site.outside.write_text("none of them\n")
    assert kinds(scene.site.verify()) == ["no_checkpoint"]


def test_two_histories(scene: Scene, tmp_path: Path, clock: FakeClock) -> None:
    """A log that shows one history to one sink and another to the next is found by comparing them."""
    kept = scene.site.outside.read_text()
    audit_attacks.replace_everything(scene)
    append(scene.both, 1, clock)
    other = (scene.site.folder / "checkpoint").read_text()
    scene.site.outside.write_text(f"{kept}\n{other}")
    assert {"forked", "index_changed"} <= set(kinds(scene.site.verify()))
