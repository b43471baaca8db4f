"""Commands in RESP, the protocol of Redis and Valkey, and scripts by digest."""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple

Argument = bytes | str | int


class Script:
    """A Lua script, whose source is sent only if the server does not have it.

    :param code: its source.
    """

    def __init__(self, code: str) -> None:
        # The protocol identifies scripts by SHA-1; it is not used for security.
        digest = sha1(code.encode(), usedforsecurity=False).hexdigest().encode()
        self._short = b"EVALSHA", digest
        self._parts = _strings(*self._short), _strings(b"EVAL", code.encode())

    def on(self, keys: list[str], *arguments: Argument) -> Command:
        """Return the command that runs it, for keys on the same server."""
        names = [each.encode() for each in keys]
        return self.prepared(names[0], b"%d" % len(names), *names, *map(_encoded, arguments))

    def prepared(self, key: bytes, *arguments: bytes) -> Command:
        """Return the command that runs it; the arguments are the number of keys, the keys, and others."""
        return Command(key, packed(*self._short, *arguments), self)

    def whole(self, sent: bytes) -> bytes:
        """Return the command with the source of the script, for a server that does not have it."""
        return sent.replace(*self._parts, 1)


class Command(NamedTuple):
    """A command for the server of a key.

    :param packed: the encoded command.
    :param script: the script that it runs, or None.
    """

    key: bytes
    packed: bytes
    script: Script | None = None


def packed(*arguments: bytes) -> bytes:
    """Return an encoded command."""
    return b"*%d\r\n%b" % (len(arguments), _strings(*arguments))


def command(name: str, key: str, *arguments: Argument) -> Command:
    """Return a command whose first argument is its key."""
    encoded = key.encode()
    return Command(encoded, packed(name.encode(), encoded, *map(_encoded, arguments)))


def _strings(*arguments: bytes) -> bytes:
    return b"".join([b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments])


def _encoded(argument: Argument) -> bytes:
    if isinstance(argument, bytes):
        return argument
    return argument.encode() if isinstance(argument, str) else b"%d" % argument
