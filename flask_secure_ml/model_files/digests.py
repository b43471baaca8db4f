r"""SHA-256 digests of models: of one file, and of a directory.

A digest file has the format of ``sha256sum`` (GNU coreutils manual, "cksum invocation", sections on output modes):
``<64 hex digits><space><space or *><name>`` or, with ``--tag``, ``SHA256 (<name>) = <64 hex digits>``; a backslash at
the beginning of a line means that ``\\``, ``\n`` and ``\r`` in the name are escaped.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from hmac import compare_digest
from pathlib import Path

from .errors import UnverifiedModel
from .files import Files, read_file

MAX_SUMS = 1 << 20

_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_LINES = (
    re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-fA-F]{64}) [ *](?P<name>.+)", re.ASCII),
    re.compile(r"(?P<escaped>\\?)SHA256 \((?P<name>.+)\) = (?P<digest>[0-9a-fA-F]{64})", re.ASCII),
)
_ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}


def file_digest(data: bytes) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def directory_digest(files: Files) -> str:
    r"""Return the SHA-256 digest of what ``sha256sum`` prints of all files, sorted by the bytes of their paths.

    The same digest comes from the directory itself with::

        find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum

    :param files: the content of each file by its relative path.
    """
    listing = hashlib.sha256()
    for name in sorted(files, key=str.encode):
        listing.update(f"{file_digest(files[name])}  {name}\n".encode())
    return listing.hexdigest()


def read_digest(sums: str | os.PathLike[str], path: str | os.PathLike[str]) -> str:
    """Return the digest that a file in the format of ``sha256sum`` gives for a model.

    A line counts when it names the model by its bare name, or by its path from where the digest file is.

    :param sums: the digest file, such as ``model.onnx.sha256`` or ``SHA256SUMS``.
    :param path: the model; it need not exist.
    :raises UnreadableModel: the digest file is missing or larger than 1 MiB.
    :raises UnverifiedModel: it does not name the model, or gives two digests for it.
    """
    sums, path = Path(sums), Path(path)
    content = read_file(sums, MAX_SUMS).decode("utf-8", "surrogateescape")
    found = {digest.lower() for digest, name in _entries(content) if _names(name, sums, path)}
    if len(found) != 1:
        problem = f"it has {'no' if not found else 'more than one'} SHA-256 digest for {path.name}"
        raise UnverifiedModel(sums, problem, f"Write it where the model was made: {_command(path)}")
    return found.pop()


def check_digest(path: Path, actual: str, expected: str | os.PathLike[str]) -> None:
    """Compare digests in constant time.

    :param expected: 64 hexadecimal digits, or the path of a file for :func:`read_digest`.
    :raises UnverifiedModel: they differ, or what is expected is not a digest.
    """
    if not isinstance(expected, str):
        expected = read_digest(expected, path)
    if not _DIGEST.fullmatch(expected):
        problem = "what is expected is not a SHA-256 digest of 64 hexadecimal digits"
        raise UnverifiedModel(path, problem, "Pass the digits as a string, or the digest file as a pathlib.Path")
    if not compare_digest(actual.encode(), expected.lower().encode()):
        problem = f"its SHA-256 digest is {actual}, and {expected.lower()} is expected"
        raise UnverifiedModel(path, problem, "Restore the right file; expect the other digest only if you know why")


def _entries(content: str) -> Iterator[tuple[str, str]]:
    for line in content.split("\n"):
        match = next(filter(None, (pattern.fullmatch(line.removesuffix("\r")) for pattern in _LINES)), None)
        if match:
            yield match["digest"], _unescape(match["name"]) if match["escaped"] else match["name"]


def _unescape(name: str) -> str:
    return re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match[0]], name)


def _names(name: str, sums: Path, path: Path) -> bool:
    # Lexical on purpose: the target of a link does not show which name was meant.
    return name == path.name or (sums.parent / name).absolute() == path.absolute()


def _command(path: Path) -> str:
    return f"flask secure-ml model digest {path.name} > {path.name}.sha256"
