"""Closes the files of processes that ended, and deletes old files."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from .index import OpenIndex
from .records import BrokenLineError, seconds_of, timestamp
from .stream import CLOSED, Tail, is_in_use, last_record, segment_files

Actions = list[Callable[[], None]]
"""Actions to run after the checkpoint that covers them is published."""


def adopt(folder: Path, index: OpenIndex, every: int, now: float) -> Actions:
    """Add the ends of streams whose process died to the index; return the actions that close their files."""
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
    """Record in the index which files are deleted because of their age; return the actions that delete them.

    A file is deleted after a head in the index has covered all of it for the given number of seconds.
    """
    old = list(_old_files(folder, now - seconds))
    if not old:
        return []
    covered = _covered(index, {tail.stream for _, _, tail in old})
    actions: Actions = []
    kept: set[str] = set()
    for segment, path, tail in old:
        since = min((time for seq, time in covered.get(tail.stream, ()) if seq >= tail.seq), default=now)
        # In order, so that only the oldest files of a stream are deleted.
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
        found = path.stat()
        # Only the owner can check whether a process still writes it, so files of other users are skipped. A file is
        # empty until its writer has locked it: to check it then would make the writer fail.
        if stat.S_IMODE(found.st_mode) == CLOSED or not found.st_size or is_in_use(path):
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
        seq = leaf.get("seq")
        if leaf.get("kind") == "head" and str(leaf.get("stream")) in streams and isinstance(seq, int):
            with suppress(BrokenLineError):
                found.setdefault(leaf["stream"], []).append((seq, seconds_of(leaf.get("time"))))
    return found
