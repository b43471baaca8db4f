"""Remembers what verified tokens prove, so that a known one costs microseconds."""

from __future__ import annotations

from hashlib import sha256
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class TokenCache(Generic[T]):
    """A bounded memory by the digest of a token; the token itself is not kept.

    Whether what it returns still holds is for the caller to check. Only what was verified should be put in: then
    nobody without a valid token can fill it.

    :param size: the most tokens; the one that was put in first is forgotten first. 0 remembers nothing. What a usual
        JWT proves takes about 2 KB.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = Lock()
        self._entries: dict[bytes, T] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: str) -> T | None:
        """Return what is remembered of a token, or None."""
        # Most of the cost is the digest.
        return self._entries.get(_digest(token)) if self._entries else None

    def put(self, token: str, value: T) -> None:
        """Remember something of a token."""
        if not self._size:
            return
        with self._lock:
            key = _digest(token)
            self._entries.pop(key, None)
            while len(self._entries) >= self._size:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = value

    def forget(self, token: str) -> None:
        """Forget a token."""
        with self._lock:
            self._entries.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
