"""Attacks on an audit log, one function each; tests/corpus/audit has the expected findings of a verification.

An outsider can write every file but has no key. A keyholder has compromised the app: it has the keys of the app, and
the key of the live stream, which is that of its next record.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from audit_logs import EVERY, IdleWriter, Site, append, stream_of
from flask_secure_ml.observe.audit.checkpoint import sign
from flask_secure_ml.observe.audit.index import CHECKPOINT, INDEX, STATE
from flask_secure_ml.observe.audit.keys import AppKeys, load_app_keys, mac_of, make_keys, next_key
from flask_secure_ml.observe.audit.records import Members, canonical, line_of, parse, split_line, timestamp
from flask_secure_ml.observe.audit.stream import CLOSED, STREAMS, Stream, StreamOptions, segment_path
from flask_secure_ml.observe.audit.tree import Tree
from flask_secure_ml.observe.audit.writer import Writer

OLD = 10
"""The attacked record. Of 30 written records in each stream, the sent checkpoints cover 20."""


class Scene:
    """A log of two processes with 30 records each; checkpoints cover the first 20, a backup has the first 5."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.one, self.two = site.writer(), site.writer()
        self.both = (self.one, self.two)
        append(self.both, 4, site.clock)
        self.checkpoint()
        self.backup = site.folder.with_name("backup")
        shutil.copytree(site.folder, self.backup)
        append(self.both, 15, site.clock)
        self.checkpoint()
        append(self.both, 10, site.clock)

    def checkpoint(self) -> None:
        for writer in self.both:
            writer.checkpoint()

    def lines(self, writer: Writer, segment: int = 0) -> list[bytes]:
        return self.site.files(writer)[segment].read_bytes().splitlines(keepends=True)

    def put(self, writer: Writer, lines: list[bytes], segment: int = 0) -> None:
        self.site.files(writer)[segment].write_bytes(b"".join(lines))

    def leaves(self) -> list[bytes]:
        return (self.site.folder / INDEX).read_bytes().splitlines()

    def rewrite_index(self, leaves: list[bytes]) -> None:
        """Replace the index, and sign it, as the keyholder can."""
        tree = Tree()
        for each in leaves:
            tree.append(each)
        folder = self.site.folder
        (folder / INDEX).write_bytes(b"".join(each + b"\n" for each in leaves))
        (folder / STATE).unlink()
        (folder / CHECKPOINT).write_text(sign(tree, self.site.keys.origin, self.site.keys.signing))

    def add_leaf(self, leaf: Members) -> None:
        self.rewrite_index([*self.leaves(), canonical(leaf)])


def changed(line: bytes, **members: object) -> bytes:
    mac, record = split_line(line)
    return line_of(mac, canonical({**parse(record), **members}))


# Attacks of an outsider.


def edit(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    lines[OLD] = changed(lines[OLD], status=403)
    scene.put(scene.one, lines)


def delete(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    scene.put(scene.one, lines[:OLD] + lines[OLD + 1 :])


def insert(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    scene.put(scene.one, [*lines[:OLD], changed(lines[OLD], status=403), *lines[OLD:]])


def reorder(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    lines[OLD], lines[OLD + 1] = lines[OLD + 1], lines[OLD]
    scene.put(scene.one, lines)


def duplicate(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    scene.put(scene.one, [*lines[: OLD + 1], *lines[OLD:]])


def splice(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    lines[OLD] = scene.lines(scene.two)[OLD]
    scene.put(scene.one, lines)


def cut(scene: Scene) -> None:
    scene.put(scene.one, scene.lines(scene.one)[:OLD])


def cut_in_a_line(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    scene.put(scene.one, [*lines[:OLD], lines[OLD][:100]])


def missing_stream(scene: Scene) -> None:
    scene.site.files(scene.two)[0].unlink()


def _segments(scene: Scene) -> None:
    """Continue the stream in two more files."""
    for _ in range(2):
        assert scene.one._stream is not None
        scene.one._stream._begin_segment({"action": "segment"})
        append([scene.one], 5, scene.site.clock)
    scene.checkpoint()


def missing_segment(scene: Scene) -> None:
    _segments(scene)
    scene.site.files(scene.one)[1].unlink()


def swap_segments(scene: Scene) -> None:
    _segments(scene)
    first, second = scene.lines(scene.one, 1), scene.lines(scene.one, 2)
    for path in scene.site.files(scene.one):
        path.chmod(0o600)
    scene.put(scene.one, second, 1)
    scene.put(scene.one, first, 2)


def empty_segment(scene: Scene) -> None:
    _segments(scene)
    scene.site.files(scene.one)[1].chmod(0o600)
    scene.put(scene.one, [], 1)


def foreign_stream(scene: Scene) -> None:
    """Anyone can seal a key to the public key of the log, and compute codes under it."""
    base = scene.site.folder.with_name("foreign")
    make_keys(base, base.with_name("foreign.key"), "tests/audit")
    theirs = load_app_keys(base)
    keys = AppKeys("tests/audit", scene.site.keys.sealing, theirs.signing, theirs.digest)
    Stream(scene.site.folder, keys, scene.site.clock, StreamOptions("off"), {}).append({"action": "request"})


def resealed_key(scene: Scene) -> None:
    """Replace the key of a stream by one that the outsider knows, and compute all codes."""
    key, mac, lines = bytes(32), "0" * 64, []
    for number, line in enumerate(scene.lines(scene.one)):
        members = {**parse(split_line(line)[1]), "prev": mac}
        if number == 0:
            members["sealed"] = scene.site.keys.seal(key, {"segment": 0, "seq": 0, "stream": members["stream"]})
        record = canonical(members)
        mac, key = mac_of(key, record), next_key(key)
        lines.append(line_of(mac, record))
    scene.put(scene.one, lines)


def edit_index(scene: Scene) -> None:
    leaves = scene.leaves()
    leaves[0] = leaves[0].replace(b'"seq":4', b'"seq":3')
    (scene.site.folder / INDEX).write_bytes(b"".join(each + b"\n" for each in leaves))


def cut_index(scene: Scene) -> None:
    (scene.site.folder / INDEX).write_bytes(scene.leaves()[0] + b"\n")


def no_index(scene: Scene) -> None:
    (scene.site.folder / INDEX).unlink()


def other_checkpoint(scene: Scene) -> None:
    base = scene.site.folder.with_name("foreign")
    make_keys(base, base.with_name("foreign.key"), "tests/audit")
    tree = Tree()
    for each in scene.leaves():
        tree.append(each)
    (scene.site.folder / CHECKPOINT).write_text(sign(tree, "tests/audit", load_app_keys(base).signing))


def long_line(scene: Scene) -> None:
    """Append more than a crash can leave behind."""
    path = scene.site.files(scene.one)[0]
    path.write_bytes(path.read_bytes() + b"x" * 70_000)


def rollback(scene: Scene) -> None:
    shutil.rmtree(scene.site.folder)
    shutil.copytree(scene.backup, scene.site.folder)


def everything_deleted(scene: Scene) -> None:
    for path in [
        *(scene.site.folder / STREAMS).iterdir(),
        *map(scene.site.folder.joinpath, (INDEX, STATE, CHECKPOINT)),
    ]:
        path.unlink()


def cut_after_the_last_checkpoint(scene: Scene) -> None:
    scene.put(scene.one, scene.lines(scene.one)[:25])


def postdated_retirement(scene: Scene) -> None:
    """Delete a stream as if it had expired, in a month that has not passed; no checkpoint covers the new leaves."""
    later = timestamp(scene.site.clock.now() + 31 * 86_400)
    mac = split_line(scene.lines(scene.two)[19])[0]
    end = {"adopted": True, "every": EVERY, "kind": "head", "time": later}
    leaves: list[Members] = [
        {"kind": "retired", "mac": mac, "segment": 0, "seq": 19, "stream": stream_of(scene.two), "time": later},
        {**end, "mac": mac, "seq": 19, "stream": stream_of(scene.two)},
        {**end, "mac": split_line(scene.lines(scene.one)[29])[0], "seq": 29, "stream": stream_of(scene.one)},
    ]
    with (scene.site.folder / INDEX).open("ab") as index:
        index.writelines(canonical(leaf) + b"\n" for leaf in leaves)
    missing_stream(scene)


# Further attacks of a keyholder.


def _live_key(writer: Writer) -> bytes:
    assert writer._stream is not None
    return bytes(writer._stream._key)


def _recomputed(lines: list[bytes], key: bytes, mac: str, start: int) -> list[bytes]:
    """Renumber lines and compute their codes, starting with the live key."""
    found = []
    for number, line in enumerate(lines, start):
        record = canonical({**parse(split_line(line)[1]), "seq": number, "prev": mac, "status": 200})
        mac, key = mac_of(key, record), next_key(key)
        found.append(line_of(mac, record))
    return found


def rewrite_old_with_live_key(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    before = split_line(lines[OLD - 1])[0]
    edited = [changed(lines[OLD], endpoint="other"), *lines[OLD + 1 :]]
    scene.put(scene.one, [*lines[:OLD], *_recomputed(edited, _live_key(scene.one), before, OLD)])


def delete_old_with_live_key(scene: Scene) -> None:
    lines = scene.lines(scene.one)
    before = split_line(lines[OLD - 1])[0]
    scene.put(scene.one, [*lines[:OLD], *_recomputed(lines[OLD + 1 :], _live_key(scene.one), before, OLD)])


def cut_and_go_on(scene: Scene) -> None:
    """Truncate the stream, and let the app continue after the cut."""
    stream = scene.one._stream
    assert stream is not None
    lines = scene.lines(scene.one)[:OLD]
    scene.put(scene.one, lines)
    stream.seq, stream.mac = OLD, split_line(lines[-1])[0]
    append([scene.one], 30, scene.site.clock)


def replace_a_stream(scene: Scene) -> None:
    """Rewrite a stream from its beginning, with a new signed key."""
    key, mac, lines = bytes(32), "0" * 64, []
    for number, line in enumerate(scene.lines(scene.one)):
        members = {**parse(split_line(line)[1]), "prev": mac}
        if number == 0:
            header = {"segment": 0, "seq": 0, "stream": members["stream"]}
            members["sealed"] = scene.site.keys.seal(key, header)
            members["signature"] = scene.site.keys.sign_header(header, members["sealed"])
        record = canonical(members)
        mac, key = mac_of(key, record), next_key(key)
        lines.append(line_of(mac, record))
    scene.put(scene.one, lines)


def other_key_in_the_next_file(scene: Scene) -> None:
    stream = scene.one._stream
    assert stream is not None
    stream._key[:] = bytes(32)
    stream._begin_segment({"action": "segment"})


def wrong_link(scene: Scene) -> None:
    stream = scene.one._stream
    assert stream is not None
    stream.mac = "f" * 64
    append([scene.one], 1, scene.site.clock)


def backdated_index(scene: Scene) -> None:
    """Backdate a stream and its leaf."""
    scene.site.clock.advance(-3600)
    forged = scene.site.writer()
    append([forged], 3, scene.site.clock)
    forged.checkpoint()
    scene.site.clock.advance(3600)


def strange_leaf(scene: Scene) -> None:
    scene.add_leaf({"kind": "note", "stream": "x"})


def premature_retirement(scene: Scene) -> None:
    last = parse(scene.leaves()[-1])
    gone = {"kind": "retired", "mac": last["mac"], "segment": 0, "seq": last["seq"], "stream": stream_of(scene.two)}
    scene.add_leaf({**gone, "time": timestamp(scene.site.clock.now())})
    missing_stream(scene)


def backdated_stream(scene: Scene) -> None:
    scene.site.clock.advance(3600)
    now = scene.site.clock.now()
    for _ in range(30):
        scene.checkpoint()
    scene.site.clock.advance(-3600)
    forged = scene.site.writer()
    append([forged], 3, scene.site.clock)
    scene.site.clock.advance(now - scene.site.clock.now())
    forged.checkpoint()


def long_interval(scene: Scene) -> None:
    """Claim that checkpoints are decades apart, so that a backdated stream may be missing from the index."""
    scene.add_leaf({**parse(scene.leaves()[-1]), "every": 10**9})
    scene.site.clock.advance(-3600)
    forged = scene.site.writer()
    append([forged], 3, scene.site.clock)
    scene.site.clock.advance(3600)
    forged.checkpoint()


def backdated_records(scene: Scene) -> None:
    append(scene.both, 1, scene.site.clock)
    for _ in range(20):
        scene.site.clock.advance(EVERY)
        scene.checkpoint()
    scene.site.clock.advance(-900)
    append([scene.one], 1, scene.site.clock)
    scene.site.clock.advance(900)


def added_after_the_end(scene: Scene) -> None:
    stream = scene.one._stream
    assert stream is not None
    scene.one._stream = None
    path = segment_path(scene.site.folder, stream.id, 0)
    tail = {"every": EVERY, "final": True, "kind": "head", "mac": stream.mac, "seq": stream.seq - 1}
    scene.add_leaf({**tail, "stream": stream.id, "time": timestamp(scene.site.clock.now())})
    stream.append({"action": "request", "status": 200})
    path.chmod(CLOSED)


def silence(scene: Scene) -> None:
    """Send no checkpoint for an hour while the app is in use."""
    scene.site.clock.advance(3600)
    append(scene.both, 1, scene.site.clock)
    scene.checkpoint()


def silent_process(scene: Scene) -> None:
    """Stop sending the heads of one process while it runs."""
    for _ in range(20):
        scene.site.clock.advance(EVERY)
        scene.one.checkpoint()


def silence_until_now(scene: Scene) -> None:
    scene.site.clock.advance(3600)


def cut_silently(scene: Scene) -> None:
    """Truncate the stream, and write an index without the removed records."""
    scene.put(scene.one, scene.lines(scene.one)[:5])
    keep = [each for each in scene.leaves() if parse(each)["seq"] == 4 or parse(each)["stream"] != stream_of(scene.one)]
    scene.rewrite_index([*keep, keep[0]])


def forget_a_stream(scene: Scene) -> None:
    missing_stream(scene)
    leaves = [each for each in scene.leaves() if parse(each)["stream"] == stream_of(scene.one)]
    scene.rewrite_index([*leaves, *leaves])


def replace_everything(scene: Scene) -> None:
    """Write another log with the keys of the app, with the same number of leaves."""
    count = len(scene.leaves())
    everything_deleted(scene)
    forged = IdleWriter(scene.site.folder, scene.site.keys, scene.site.clock, scene.site.options)
    # Nothing may reach the sink, because that would be detected at once.
    forged._delivery._queues.clear()
    append([forged], 30, scene.site.clock)
    for _ in range(count):
        forged.checkpoint()


def keyholder_rollback(scene: Scene) -> None:
    rollback(scene)


def snapshot(folder: Path) -> str:
    """Return the whole content of a log, to check that an attack changed it."""
    return json.dumps({str(each): each.read_bytes().decode() for each in sorted(folder.rglob("*")) if each.is_file()})
