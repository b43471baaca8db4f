"""Paths of URLs: as clients send them, in WSGI, and decoded."""

from __future__ import annotations

from collections.abc import Collection


def in_mount(path: str, mounts: Collection[str]) -> bool:
    """Return True if a path, in WSGI or in canonical form, is one of the mounts or below one."""
    meant = {each for spelling in spellings(path) for each in (spelling, canonical(spelling))}
    return any(each == mount or each.startswith(f"{mount}/") for each in meant for mount in mounts)


def canonical(path: str) -> str:
    """Return a path without empty and dot segments (RFC 3986 section 5.2.4)."""
    if "//" not in path and "/." not in path:
        return path
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in {"", "."}:
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def spellings(path: str) -> tuple[str, ...]:
    """Return a path in WSGI and decoded, because middleware may compare either."""
    if path.isascii():
        return (path,)
    # PEP 3333: the environ has the bytes of a path decoded as Latin-1.
    return path, path.encode("latin-1", "replace").decode(errors="replace")
