"""Mutations of JSON bodies: each has a few random changes, which are the same for the same seed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

# Numbers that parsers, doubles and dtypes treat differently.
NUMBERS: Sequence[bytes] = tuple(
    b"0 -0 1 -1 1.0 -0.0 0.1 00 01 -01 1. .5 +1 - 1e 1e5 1E+2 1e-2 1e400 -1e400 1e-400 -1e-400 5e-324 2.5e-324 "
    b"NaN Infinity -Infinity 0x10 1_0 127 128 -128 -129 255 256 32767 32768 65504 65519 65520 16777217 "
    b"2147483647 2147483648 -2147483648 -2147483649 4294967295 4294967296 9007199254740992 9007199254740993 "
    b"9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809 "
    b"18446744073709551615 18446744073709551616 100000000000000000000000000000000000000000 "
    b"3.4028234663852886e38 3.4028235677973366e38 3.4028235677973362e38 3.4028236e38 1.7976931348623157e308 "
    b"1.7976931348623159e308 0.30000000000000004 1000000 1000000.0000000001 1000001 2.2250738585072011e-308 "
    b"0.09999999999 "
    b"6.103515625e-05 5.960464477539063e-08 1.1754943508222875e-38 7.0e-46 1e0 10e-1 1.50000000000000000000001".split()
)
_LEAVES: Sequence[bytes] = (
    *NUMBERS,
    *(b"true", b"false", b"null", b'""', b'"1"', b'"["', b'"]"', b'"[["', b'","', b'":"', b'"a:b"', b'"\\u005b"'),
    *(b"[]", b"{}", b"[1]", b"[[1]]", b"[[]]", b'{"a":1}', b"[1,2]", b"tru", b'"\\ud800"', b'"\xff"', b'"\\x"'),
    *(b'"abc"', b'"\\u0061bc"', b'"red"', b'"Red"', b'"r\xc3\xa9d"', b'"\\n"', b'"\x01"'),
)
_SPACES: Sequence[bytes] = (
    b" ",
    b"\n",
    b"\t",
    b"\r",
    b"  \n ",
    b"\x0c",
    b"\x0b",
    b"\xc2\xa0",
    b"\x00",
    b"/**/",
    b"," * 2,
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_LEAF = re.compile(rb'(?<=[\[,:])\s*[^\s\[\]{},:"]+')
_MEMBER = re.compile(rb'"[^"]*"\s*:\s*(?:\[[^"{}]*\]|"[^"]*"|[^\s\[\]{},"]+)')
_ROW = re.compile(rb"\[[^\[\]]*\]")


def _replace(body: bytes, match: re.Match[bytes], by: bytes) -> bytes:
    return body[: match.start()] + by + body[match.end() :]


def _some(pattern: re.Pattern[bytes], body: bytes, chance: random.Random) -> re.Match[bytes] | None:
    found = list(pattern.finditer(body))
    return chance.choice(found) if found else None


def _number(body: bytes, chance: random.Random) -> bytes:
    match = _some(_LEAF, body, chance)
    return body if match is None else _replace(body, match, chance.choice(NUMBERS))


def _leaf(body: bytes, chance: random.Random) -> bytes:
    match = _some(_LEAF, body, chance)
    return body if match is None else _replace(body, match, chance.choice(_LEAVES))


def _byte(body: bytes, chance: random.Random) -> bytes:
    raw = bytearray(body or b"0")
    place = chance.randrange(len(raw))
    raw[place] = chance.choice((raw[place] ^ 1 << chance.randrange(8), chance.randrange(256), *b'[]{},:"0-.e\\ '))
    return bytes(raw)


def _cut(body: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(body) + 1)
    return body[:start] + body[start + chance.randrange(1, 5) :]


def _token(body: bytes, chance: random.Random) -> bytes:
    """Remove or repeat a token, or replace it by another token of the body."""
    match, other = _some(_TOKEN, body, chance), _some(_TOKEN, body, chance)
    if match is None or other is None:
        return body
    return _replace(body, match, chance.choice((b"", match[0] * 2, other[0], match[0] + other[0])))


def _space(body: bytes, chance: random.Random) -> bytes:
    match = _some(_TOKEN, body, chance)
    return body if match is None else _replace(body, match, match[0] + chance.choice(_SPACES))


def _member(body: bytes, chance: random.Random) -> bytes:
    """Repeat or remove a member, escape its name, add a member or assign the value of another one."""
    match, other = _some(_MEMBER, body, chance), _some(_MEMBER, body, chance)
    if match is None or other is None:
        return body
    name, _, value = match[0].partition(b":")
    escaped = b'"\\u%04x' % name[1] + name[2:] if len(name) > 2 else name
    added = chance.choice((b'"z":1', b'"[":1', b'"":[]', name + b":" + chance.choice(_LEAVES), escaped + b":" + value))
    by = (
        b"",
        b"",
        match[0] + b"," + match[0],
        match[0] + b"," + added,
        added + b"," + match[0],
        escaped + b":" + value,
        name + b":" + other[0].partition(b":")[2],
        name + b":" + chance.choice(_LEAVES),
        name + b":[" + value + b"]",
        name.upper() + b":" + value,
    )
    found = _replace(body, match, chance.choice(by))
    # Remove the comma of a removed member.
    return found.replace(b",,", b",").replace(b"{,", b"{").replace(b",}", b"}")


def _row(body: bytes, chance: random.Random) -> bytes:
    """Change the number, depth or length of the innermost lists."""
    match = _some(_ROW, body, chance)
    if match is None:
        return body
    inner = match[0][1:-1]
    by = (match[0] + b"," + match[0], b"", b"[]", inner, b"[" + match[0] + b"]", b"[[" + inner + b"],[" + inner + b"]]")
    more = (match[0][:-1] + b",1]", match[0] + b",[]", b"[]," + match[0], b"{" + inner + b"}", match[0] + b",1")
    return _replace(body, match, chance.choice((*by, *more)))


def _whole(body: bytes, chance: random.Random) -> bytes:
    """Change the whole document: its encoding, its surroundings or its size."""
    text = body.decode("utf-8", "replace")
    return chance.choice(
        (
            b"\xef\xbb\xbf" + body,
            text.encode("utf-16"),
            text.encode("utf-16-le"),
            text.encode("utf-32"),
            body + chance.choice((b"1", b"{}", b"\x00", b",", b"]", b"\n", b"//")),
            b"[" + body + b"]",
            body[: chance.randrange(len(body) + 1)],
            body.ljust(700),
            body.replace(b",", b", ").replace(b":", b": "),
            body.rjust(len(body) + 3),
        )
    )


_CHANGES: Sequence[Callable[[bytes, random.Random], bytes]] = (
    *(_number, _number, _number, _leaf, _byte, _cut, _token, _space, _space, _member, _member, _row, _row, _whole),
)


def mutant(originals: Sequence[bytes], chance: random.Random) -> bytes:
    """Return one of the originals with up to three changes."""
    body = chance.choice(originals)
    for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 2, 3))):
        body = chance.choice(_CHANGES)(body, chance)
    return body
