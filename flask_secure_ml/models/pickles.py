"""Telling a pickle by what it does, of every protocol and whatever its file is called.

There is no magic number: protocols 0 and 1 begin with any opcode, and the two bytes that begin protocols 2 to 5 also
begin other files (a safetensors file whose header has 1152 bytes begins as protocol 4). So the opcodes are walked as
an unpickler would walk them, with a count for a stack and without building or importing anything, until one of these:

* an opcode imports a module of a fixed list: its code would run, whatever comes after it;
* an opcode calls something that was imported before, from wherever a loader of its own may take it;
* the pickle ends with a value;
* an opcode is impossible there: an unpickler stops with an error, and nothing was called until then.

The verdict depends on the bytes alone, never on what is installed, so it is the same where a model is made and where it
is served.

Arguments are skipped by length and not decoded, so that no quirk of a decoder hides what follows.
Source: :mod:`pickletools` of the standard library, PEP 307, PEP 3154 and PEP 574.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import BinaryIO

from .modules import MODULES

MAX_OPCODES = 20_000
_MAX_LINE = 1 << 20
_CHUNK = 1 << 20

_IMPORTS = frozenset({"GLOBAL", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})
_PERSISTENT = frozenset({"PERSID", "BINPERSID"})
_CALLS = frozenset({"REDUCE", "BUILD", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
_DECISIVE = frozenset({"INST", "STACK_GLOBAL"})
_TWO_LINES = frozenset({"GLOBAL", "INST"})
_TEXTS = ([pickletools.pyunicode], [pickletools.pybytes_or_str])
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
    """What an unpickler has on its stack, as counts.

    :param lookups: the opcodes that bring something that can be called.
    :param named: whether there was a text, which STACK_GLOBAL could take for a name.
    """

    lookups: frozenset[str] = _IMPORTS | _PERSISTENT
    depth: int = 0
    marks: list[int] = field(default_factory=list)
    imported: bool = False
    named: bool = False

    def step(self, opcode: pickletools.OpcodeInfo) -> None:
        if opcode.name == "MARK":
            self.marks.append(self.depth)
        elif opcode.name == "POP" and self.marks and self.marks[-1] == self.depth:
            self.marks.pop()
        else:
            self._replace(opcode)
        self.imported = self.imported or opcode.name in self.lookups
        self.named = self.named or self.imported or opcode.stack_after in _TEXTS

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
    return _ends(stream, _Machine()) != "impossible"


def runs_code(stream: BinaryIO) -> bool:
    """Return whether unpickling this stream would import or call something, except what a persistent id stands for.

    :raises OSError, EOFError, zlib.error, lzma.LZMAError: the stream is compressed and damaged.
    """
    return _ends(stream, _Machine(_IMPORTS)) in {"code", "unknown"}


def _ends(stream: BinaryIO, machine: _Machine) -> str:
    try:
        for _ in range(MAX_OPCODES):
            if end := _step(stream, machine):
                return end
    except _Impossible:
        return "impossible"
    return "unknown"


def _step(stream: BinaryIO, machine: _Machine) -> str:
    opcode = _OPCODES.get(stream.read(1))
    if opcode is None or (opcode.name == "STACK_GLOBAL" and not machine.named):
        raise _Impossible
    if _skip_argument(stream, opcode):
        return "code"
    machine.step(opcode)
    if opcode.name in _CALLS and not machine.imported:
        # With None for a state BUILD does nothing, to whatever it is done.
        if opcode.name != "BUILD":
            raise _Impossible
        return ""
    if opcode.name in _CALLS or opcode.name in _DECISIVE:
        return "code"
    return "value" if opcode.name == "STOP" else ""


def _skip_argument(stream: BinaryIO, opcode: pickletools.OpcodeInfo) -> bool:
    """Read over an argument, and return whether it names a module whose import counts as code."""
    size = opcode.arg.n if opcode.arg else 0
    counts = opcode.name in _TWO_LINES and _skip_module(stream)
    if size == pickletools.UP_TO_NEWLINE:
        _line(stream)
    elif size < 0:
        size = int.from_bytes(_exactly(stream, _LENGTH_BYTES[size]), "little")
    _skip(stream, max(size, 0))
    return counts


def _skip_module(stream: BinaryIO) -> bool:
    parts = _line(stream).decode("utf-8", "replace").split(".")
    if parts[0] in MODULES:
        return True
    # A table whose first line begins with a c looks like an import until one asks for the module's name. An importer
    # takes the name of a file, which may have hyphens or begin with a digit.
    if not all(part and f"_{part.replace('-', '_')}".isidentifier() for part in parts):
        raise _Impossible
    return False


def _line(stream: BinaryIO) -> bytes:
    """Return the beginning of a line, at most a megabyte; no module has a longer name.

    The unpickler in C asks for the end of the line, the one in Python takes the end of the file for it.
    """
    line = beginning = stream.readline(_MAX_LINE)
    while line and not line.endswith(b"\n"):
        line = stream.readline(_MAX_LINE)
    return beginning.removesuffix(b"\n")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise _Impossible
    return data


def _skip(stream: BinaryIO, size: int) -> None:
    while size:
        size -= len(_exactly(stream, min(size, _CHUNK)))
