r"""Digests and signatures of models, for single files and directories.

A digest file has the format of ``sha256sum`` (GNU coreutils manual, "cksum invocation", sections on output modes):
``<64 hex digits><space><space or *><name>`` or, with ``--tag``, ``SHA256 (<name>) = <64 hex digits>``; a backslash at
the beginning of a line means that ``\\``, ``\n`` and ``\r`` in the name are escaped.

A signature is a Sigstore bundle with a DSSE envelope; its payload is an in-toto statement with the predicate
``https://model_signing/signature/v1.0``, which lists the digest of each file (OpenSSF Model Signing specification v1.0,
https://github.com/ossf/model-signing-spec). The package ``model-signing`` verifies it with a public key or with a
configuration of ``model_signing.verifying``: a Sigstore identity or a certificate chain.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from base64 import b64decode
from collections.abc import Iterator
from hmac import compare_digest
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from .files import Files, ModelFileError, UnverifiedModel, read_file, verified_copy

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
    r"""Return the SHA-256 digest of the output of ``sha256sum`` for all files, sorted by the bytes of their paths.

    This command in the directory prints the same digest::

        find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum

    :param files: the content of each file by its relative path.
    """
    listing = hashlib.sha256()
    for name in sorted(files, key=str.encode):
        listing.update(f"{file_digest(files[name])}  {name}\n".encode())
    return listing.hexdigest()


def read_digest(sums: str | os.PathLike[str], path: str | os.PathLike[str]) -> str:
    """Return the digest of a model from a file in the format of ``sha256sum``.

    A line matches if it has the file name of the model, or its path relative to the digest file.

    :param sums: the digest file, such as ``model.onnx.sha256`` or ``SHA256SUMS``.
    :param path: the model; it need not exist.
    :raises UnreadableModel: the digest file is missing or larger than 1 MiB.
    :raises UnverifiedModel: it has no digest for the model, or more than one.
    """
    sums, path = Path(sums), Path(path)
    content = read_file(sums, MAX_SUMS).decode("utf-8", "surrogateescape")
    found = {digest.lower() for digest, name in _entries(content) if _names(name, sums, path)}
    if len(found) != 1:
        problem = f"it has {'no' if not found else 'more than one'} SHA-256 digest for {path.name}"
        raise UnverifiedModel(sums, problem, f"Create it where the model was built: {_command(path)}")
    return found.pop()


def check_digest(path: Path, actual: str, expected: str | os.PathLike[str]) -> None:
    """Compare digests in constant time.

    :param expected: 64 hexadecimal digits, or the path of a file for :func:`read_digest`.
    :raises UnverifiedModel: they differ, or ``expected`` is not a digest.
    """
    if not isinstance(expected, str):
        expected = read_digest(expected, path)
    if not _DIGEST.fullmatch(expected):
        problem = "the expected value is not a SHA-256 digest of 64 hexadecimal digits"
        raise UnverifiedModel(path, problem, "Pass the digits as a string, or the digest file as a pathlib.Path")
    if not compare_digest(actual.encode(), expected.lower().encode()):
        problem = f"its SHA-256 digest is {actual} instead of {expected.lower()}"
        raise UnverifiedModel(
            path,
            problem,
            "Restore the original file, or change the expected digest if the file was replaced on purpose",
        )


def _entries(content: str) -> Iterator[tuple[str, str]]:
    for line in content.split("\n"):
        match = next(filter(None, (pattern.fullmatch(line.removesuffix("\r")) for pattern in _LINES)), None)
        if match:
            yield match["digest"], _unescape(match["name"]) if match["escaped"] else match["name"]


def _unescape(name: str) -> str:
    return re.sub(r"\\[\\nr]", lambda match: _ESCAPES[match[0]], name)


def _names(name: str, sums: Path, path: Path) -> bool:
    # Lexical on purpose: resolving links would change the names that are compared.
    return name == path.name or (sums.parent / name).absolute() == path.absolute()


def _command(path: Path) -> str:
    return f"flask secure-ml model digest {path.name} > {path.name}.sha256"


MAX_SIGNATURE = 1 << 26
PREDICATE = "https://model_signing/signature/v1.0"

_MAX_REASON = 200


class SignatureVerifier(Protocol):
    """A signature verifier: ``model_signing.verifying.Config`` after calling one of its ``use_*_verifier`` methods."""

    def verify(self, model_path: Path, signature_path: Path, /) -> object:
        """Raise an exception unless the signature matches exactly this file or directory."""


Signer = str | os.PathLike[str] | SignatureVerifier


def check_file(path: Path, data: bytes, signature: Path, signed_by: Signer) -> None:
    """Verify the signature of a file.

    Verifiers work on paths, so they get private copies of the bytes that were read and of the signature.

    :param path: the model, for error messages.
    :param signed_by: the PEM file of a public key (P-256, P-384 or P-521), or a verifier.
    :raises UnverifiedModel: the signature is for other bytes or by another key.
    :raises ModelFileError: ``model-signing`` is not installed, or the signature cannot be read.
    """
    with verified_copy({"model": data}) as folder:
        _check(path, folder / "model", signature, signed_by)


def check_directory(path: Path, files: Files, signature: Path, signed_by: Signer) -> Files:
    """Verify the signature of a directory, and return the files that it covers.

    A signer may exclude files, such as ``.git`` or the signature itself. These are unverified, so they are not part of
    the model.

    :raises UnverifiedModel: the signature is for other files or by another key.
    :raises ModelFileError: ``model-signing`` is not installed, or the signature cannot be read.
    """
    with verified_copy(files) as folder:
        signed = _check(path, folder, signature, signed_by)
    return {name: content for name, content in files.items() if name in signed}


def _check(path: Path, copy: Path, signature: Path, signed_by: Signer) -> frozenset[str]:
    verifier = _key_verifier(path, signed_by) if isinstance(signed_by, str | os.PathLike) else signed_by
    bundle = read_file(signature, MAX_SIGNATURE)
    with verified_copy({"signature": bundle}) as folder:
        try:
            verifier.verify(copy, folder / "signature")
            return _signed_names(bundle)
        except Exception as error:  # noqa: BLE001  after any error, the bytes are unverified
            problem = f"{signature} is not a valid signature of it ({type(error).__name__}: {str(error)[:_MAX_REASON]})"
            remedy = "Restore the signed files, or sign this model with the trusted key"
            raise UnverifiedModel(path, problem, remedy) from None


def _signed_names(bundle: bytes) -> frozenset[str]:
    """Return the names in the statement of a bundle; only the current predicate lists all files."""
    statement = json.loads(b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    if statement["predicateType"] != PREDICATE:
        raise ValueError(f"the predicate is not {PREDICATE}")
    predicate = statement["predicate"]
    names = [str(resource["name"]) for resource in predicate["resources"]]
    if predicate["serialization"]["method"] == "shards":
        names = [name.rsplit(":", 2)[0] for name in names]
    return frozenset(str(PurePosixPath(name)) for name in names)


def _key_verifier(path: Path, key: str | os.PathLike[str]) -> SignatureVerifier:
    try:
        verifying: Any = importlib.import_module("model_signing.verifying")
    except ImportError:
        remedy = "Install it: pip install 'flask-secure-ml[models]'"
        raise ModelFileError(path, "verifying its signature requires the package model-signing", remedy) from None
    try:
        verifier: SignatureVerifier = verifying.Config().use_elliptic_key_verifier(public_key=Path(key))
    except Exception as error:
        problem = f"{os.fspath(key)} is not a public key that can verify its signature ({str(error)[:_MAX_REASON]})"
        raise UnverifiedModel(path, problem, "Name the PEM file of a P-256, P-384 or P-521 public key") from error
    return verifier
