"""Files of processes that ended: their end is added to the index, and after a time they are deleted."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .index import OpenIndex
from .records import seconds_of, timestamp
from .stream import CLOSED, Tail, is_in_use, last_record, segment_files

Actions = list[Callable[[], None]]
"""What to do once the checkpoint that covers it is published."""


def adopt(folder: Path, index: OpenIndex, every: int, now: float) -> Actions:
    """Add the ends of streams whose process died before it could, and return how to close their files."""
    actions: Actions = []
    for stream, _, path in segment_files(folder):
        tail = _abandoned(path)
        if tail is not None and tail.stream == stream:
            index.add(
                {
                    "adopted": True,
                    "every": every,
                    "kind": "head",
                    "mac": tail.mac,
                    "seq": tail.seq,
                    "stream": tail.stream,
                    "time": timestamp(now),
                }
            )
            actions.append(partial(path.chmod, CLOSED))
    return actions


def retire(folder: Path, index: OpenIndex, seconds: int, now: float) -> Actions:
    """Add to the index which files are deleted because of their age, and return how to delete them.

    A file is deleted when the index has had a head of its stream that covers all of it for so many seconds.
    """
    old = list(_old_files(folder, now - seconds))
    if not old:
        return []
    covered = _covered(index, {tail.stream for _, _, tail in old})
    actions: Actions = []
    kept: set[str] = set()
    for segment, path, tail in old:
        since = min((time for seq, time in covered.get(tail.stream, ()) if seq >= tail.seq), default=now)
        # In order: what is deleted of a stream is always its beginning.
        if tail.stream in kept or since + seconds > now:
            kept.add(tail.stream)
            continue
        index.add(
            {
                "kind": "retired",
                "mac": tail.mac,
                "segment": segment,
                "seq": tail.seq,
                "stream": tail.stream,
                "time": timestamp(now),
            }
        )
        actions.append(path.unlink)
    return actions


def _abandoned(path: Path) -> Tail | None:
    try:
        # Only the owner can tell whether it still writes, so a file of another user is left alone.
        if stat.S_IMODE(path.stat().st_mode) == CLOSED or is_in_use(path):
            return None
        return last_record(path)
    except OSError:
        return None


def _old_files(folder: Path, before: float) -> Iterator[tuple[int, Path, Tail]]:
    for _, segment, path in segment_files(folder):
        try:
            found = path.stat()
            tail = last_record(path) if stat.S_IMODE(found.st_mode) == CLOSED else None
            if tail is not None and seconds_of(tail.time) <= before:
                yield segment, path, tail
        except (OSError, ValueError):
            continue


def _covered(index: OpenIndex, streams: set[str]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for leaf in index.leaves():
        if leaf.get("kind") == "head" and leaf.get("stream") in streams:
            found.setdefault(leaf["stream"], []).append((leaf["seq"], seconds_of(leaf["time"])))
    return found
