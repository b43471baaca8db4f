"""Secrets by reference: the configuration says where a secret is, never what it is."""

from __future__ import annotations

import os
from collections.abc import Callable

from .watched import WatchedFile

MINIMUM_BYTES = 32


class Secret:
    """A reference to a secret, ``env:NAME`` or ``file:/path``; the value is read when it is used.

    A file is read again when it changes, as Kubernetes and Docker secrets do.

    :raises ValueError: a literal, or a reference without a name.
    """

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self._fetch = self._source()

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def read(self) -> bytes:
        """Return the secret's bytes, without the line end that editors leave in files.

        :raises ValueError: it is missing or shorter than 32 bytes; the text names the reference only.
        """
        try:
            value = self._fetch()
        except OSError as error:
            raise ValueError(f"{self.reference} cannot be read: {error.strerror}") from None
        if len(value) < MINIMUM_BYTES:
            raise ValueError(f"{self.reference} must hold at least {MINIMUM_BYTES} bytes and holds {len(value)}")
        return value

    def _source(self) -> Callable[[], bytes]:
        scheme, _, rest = self.reference.partition(":")
        if scheme == "env" and rest:
            return lambda: os.environ.get(rest, "").encode()
        if scheme == "file" and rest:
            return WatchedFile(rest, lambda content: content.rstrip(b"\r\n")).read
        raise ValueError('must be a reference such as "env:NAME" or "file:/path", never the secret itself')
