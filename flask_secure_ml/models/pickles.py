"""Telling a pickle by what it does, of every protocol and whatever its file is called.

There is no magic number: protocols 0 and 1 begin with any opcode, and the two bytes that begin protocols 2 to 5 also
begin other files (a safetensors file whose header has 1152 bytes begins as protocol 4). So the opcodes are walked as
an unpickler would walk them, with a count for a stack and without building or importing anything, until one of these:

* an opcode calls something that was imported before: code would run, whatever comes after it;
* the pickle ends with a value;
* an opcode is impossible there: an unpickler stops with an error, and nothing was called until then.

Arguments are skipped by length and not decoded, so that no quirk of a decoder hides what follows.
Source: :mod:`pickletools` of the standard library, PEP 307, PEP 3154 and PEP 574.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import BinaryIO

MAX_OPCODES = 20_000
_MAX_LINE = 1 << 20
_CHUNK = 1 << 20

_IMPORTS = frozenset({"GLOBAL", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"})
_CALLS = frozenset({"REDUCE", "BUILD", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_TWO_LINES = frozenset({"GLOBAL", "INST"})
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class _Impossible(Exception):
    """An unpickler would stop here."""


@dataclass
class _Machine:
    """What an unpickler has on its stack, as counts."""

    depth: int = 0
    marks: list[int] = field(default_factory=list)
    imported: bool = False

    def step(self, opcode: pickletools.OpcodeInfo) -> None:
        if opcode.name == "MARK":
            self.marks.append(self.depth)
        elif opcode.name == "POP" and self.marks and self.marks[-1] == self.depth:
            self.marks.pop()
        else:
            self._replace(opcode)
        self.imported = self.imported or opcode.name in _IMPORTS

    def _replace(self, opcode: pickletools.OpcodeInfo) -> None:
        taken = opcode.stack_before
        if pickletools.markobject in taken:
            if not self.marks:
                raise _Impossible
            self.depth = self.marks.pop()
            taken = taken[: taken.index(pickletools.markobject)]
        if self.depth < len(taken):
            raise _Impossible
        self.depth += len(opcode.stack_after) - len(taken)


def is_pickle(stream: BinaryIO) -> bool:
    """Return whether unpickling this stream would call something, or give a value.

    Reads no further than it must. 20 000 opcodes that are all possible are taken for one that does: no other file has
    them, and a pickle could call something after any number of them.

    :raises OSError, EOFError, zlib.error, lzma.LZMAError: the stream is compressed and damaged.
    """
    machine = _Machine()
    try:
        for _ in range(MAX_OPCODES):
            if _decides(stream, machine):
                return True
    except _Impossible:
        return False
    return True


def _decides(stream: BinaryIO, machine: _Machine) -> bool:
    opcode = _OPCODES.get(stream.read(1))
    if opcode is None:
        raise _Impossible
    _skip_argument(stream, opcode)
    machine.step(opcode)
    if opcode.name == "BUILD" and not machine.imported:
        # With None for a state it does nothing, to whatever it is done.
        return False
    if opcode.name in _CALLS and not machine.imported:
        raise _Impossible
    return opcode.name in _CALLS or opcode.name in {"STOP", "INST"}


def _skip_argument(stream: BinaryIO, opcode: pickletools.OpcodeInfo) -> None:
    size = opcode.arg.n if opcode.arg else 0
    if opcode.name in _TWO_LINES:
        _skip_module(stream)
    if size == pickletools.UP_TO_NEWLINE:
        _skip_line(stream)
    elif size < 0:
        size = int.from_bytes(_exactly(stream, _LENGTH_BYTES[size]), "little")
    _skip(stream, max(size, 0))


def _skip_module(stream: BinaryIO) -> None:
    # A table whose first line begins with a c looks like an import until one asks for the module's name.
    if not all(part.isidentifier() for part in _line(stream).decode("utf-8", "replace").split(".")):
        raise _Impossible


def _line(stream: BinaryIO) -> bytes:
    # No module has a name of a megabyte, so importing it would fail.
    line = stream.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        raise _Impossible
    return line[:-1]


def _skip_line(stream: BinaryIO) -> None:
    while not (line := stream.readline(_MAX_LINE)).endswith(b"\n"):
        if not line:
            raise _Impossible


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise _Impossible
    return data


def _skip(stream: BinaryIO, size: int) -> None:
    while size:
        size -= len(_exactly(stream, min(size, _CHUNK)))
