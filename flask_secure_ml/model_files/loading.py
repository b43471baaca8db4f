"""Loading models after verifying their digest or signature."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from . import integrity
from .files import MAX_BYTES, Files, UnsafeModel, UnverifiedModel, read_directory, read_file, verified_copy
from .formats import KINDS, Finding, find_code
from .integrity import Signer, check_digest, directory_digest, file_digest
from .keras import config_holds_code

T = TypeVar("T")

_CONVERT = (
    "Convert the model to ONNX, safetensors, skops or plain arrays; or, if you trust its authors to run code here,"
)
_REMEDIES = {
    "external": (
        "Save the model in one file; or keep the files of an ONNX model in one directory, and load that with "
        "load_verified_copy; or, if you trust everyone who can write those files,"
    )
}


def load_verified(
    path: str | os.PathLike[str],
    *,
    loader: Callable[[io.BytesIO], T],
    sha256: str | os.PathLike[str] | None = None,
    signature: str | os.PathLike[str] | None = None,
    signed_by: Signer | None = None,
    max_bytes: int = MAX_BYTES,
    allow: Collection[str] = (),
) -> T:
    """Load a model file after verifying its digest or signature and checking that loading runs no code.

    The file is read once. Its bytes are verified, then checked for formats that run code (OWASP ASVS 5.0 1.5.2,
    CWE-502) or read other files (CWE-610), and then passed to the loader, so that replacing the file in between has no
    effect (CWE-367). The loader never gets the path. A digest or signature proves the origin of a file, not that it is
    harmless, so both checks are made.

    :param loader: returns the model from an :class:`io.BytesIO` with the verified bytes, such as :func:`numpy.load`.
        Its exceptions are not caught.
    :param sha256: the digest as 64 hexadecimal digits, from a source that cannot be changed by those who can write the
        model; or the path of a digest file, see :func:`read_digest`.
    :param signature: the file with an OpenSSF model signature (extra ``[models]``).
    :param signed_by: the expected signer: the PEM file of a public key, or a configured
        ``model_signing.verifying.Config`` for Sigstore identities and certificates.
    :param max_bytes: the maximum size of the file, checked before reading it, and of its decompressed parts. The whole
        file is kept in memory.
    :param allow: formats that are accepted although they can run code or read other files, by names in :data:`KINDS`.
    :raises UnreadableModel: the file is missing, too large, or not a regular file.
    :raises UnverifiedModel: neither a digest nor a signature was given, or one of them does not match.
    :raises UnsafeModel: loading it could run code or read other files, and ``allow`` does not permit that.
    :raises ValueError: the arguments contradict each other, or ``allow`` has an unknown name.
    """
    source = Path(path)
    _check_arguments(source, sha256, signature, signed_by, allow)
    data = read_file(source, max_bytes)
    if sha256 is not None:
        check_digest(source, file_digest(data), sha256)
    if signature is not None and signed_by is not None:
        integrity.check_file(source, data, Path(signature), signed_by)
    _reject_code(source, data, max_bytes, allow)
    return loader(io.BytesIO(data))


def load_verified_directory(
    path: str | os.PathLike[str],
    *,
    loader: Callable[[Files], T],
    sha256: str | os.PathLike[str] | None = None,
    signature: str | os.PathLike[str] | None = None,
    signed_by: Signer | None = None,
    max_bytes: int = MAX_BYTES,
    allow: Collection[str] = (),
) -> T:
    """Load a model directory, such as a SavedModel, with the checks of :func:`load_verified`.

    Symbolic links in it are rejected.

    :param loader: returns the model from a mapping of relative paths (with ``/``) to the verified bytes. For loaders
        that only accept a path, see :func:`verified_copy`.
    :param sha256: the digest of the directory, see :func:`directory_digest`; or a digest file that lists it.
    :param signature: an OpenSSF model signature of the directory; files that it does not cover are omitted.
    :param max_bytes: the maximum size of all files together.
    :raises UnreadableModel: the directory is missing, empty or too large, or contains a symbolic link or a device.
    :raises UnverifiedModel: as for :func:`load_verified`.
    :raises UnsafeModel: loading one of its files could run code or read other files, and ``allow`` does not permit it.
    :raises ValueError: as for :func:`load_verified`.
    """
    files = _verified_files(Path(path), sha256, signature, signed_by, max_bytes, allow)
    for name, data in files.items():
        _reject_code(Path(path, name), data, max_bytes, allow)
        _reject_config(Path(path, name), data, allow)
    return loader(files)


def load_verified_copy(
    path: str | os.PathLike[str],
    *,
    loader: Callable[[Path], T],
    sha256: str | os.PathLike[str] | None = None,
    signature: str | os.PathLike[str] | None = None,
    signed_by: Signer | None = None,
    max_bytes: int = MAX_BYTES,
    allow: Collection[str] = (),
) -> T:
    """Load a model directory from a private copy of its verified files.

    An ONNX model may store tensors in other files if these are verified files of the same directory: the library reads
    them from the directory of the model, and the copy contains no other files.

    :param loader: returns the model from the path of the copy. The copy is deleted when the loader returns, so it must
        have read everything by then.
    :raises UnsafeModel: loading one of the files could run code or read a file outside of the directory, and ``allow``
        does not permit that.

    Otherwise it is like :func:`load_verified_directory`.
    """
    files = _verified_files(Path(path), sha256, signature, signed_by, max_bytes, allow)
    for name, data in files.items():
        for finding in find_code(data, max_bytes):
            if not finding.reads_only(name, files):
                _reject(Path(path, name), finding, allow)
        _reject_config(Path(path, name), data, allow)
    with verified_copy(files) as folder:
        return loader(folder)


def _verified_files(
    path: Path,
    sha256: str | os.PathLike[str] | None,
    signature: str | os.PathLike[str] | None,
    signed_by: Signer | None,
    max_bytes: int,
    allow: Collection[str],
) -> Files:
    _check_arguments(path, sha256, signature, signed_by, allow)
    files: Files = read_directory(path, max_bytes)
    if sha256 is not None:
        check_digest(path, directory_digest(files), sha256)
    if signature is not None and signed_by is not None:
        files = integrity.check_directory(path, files, Path(signature), signed_by)
    return files


def _check_arguments(
    path: Path,
    sha256: str | os.PathLike[str] | None,
    signature: str | os.PathLike[str] | None,
    signed_by: Signer | None,
    allow: Collection[str],
) -> None:
    if (signature is None) != (signed_by is None):
        raise ValueError("signature and signed_by must be used together: a signature is meaningless without its signer")
    unknown = {allow} if isinstance(allow, str) else set(allow) - set(KINDS)
    if unknown:
        raise ValueError(f"allow must be a list of these names: {', '.join(KINDS)}; not {', '.join(sorted(unknown))}")
    if sha256 is None and signature is None:
        remedy = f"Pass sha256=, which `flask secure-ml model digest {path}` prints where the model was built"
        raise UnverifiedModel(path, "it has no expected digest or signature", f"{remedy}, or signature= and signed_by=")


def _reject_code(path: Path, data: bytes, limit: int, allow: Collection[str]) -> None:
    for finding in find_code(data, limit):
        _reject(path, finding, allow)


def _reject_config(path: Path, data: bytes, allow: Collection[str]) -> None:
    # An unpacked Keras model is a directory with the members of its archive.
    if path.name == "config.json" and config_holds_code(data):
        _reject(path, Finding("keras-lambda", ()), allow)


def _reject(path: Path, finding: Finding, allow: Collection[str]) -> None:
    if finding.kind not in allow:
        problem = f"it is {finding}, and loading it can {finding.consequence}"
        raise UnsafeModel(path, problem, f"{_REMEDIES.get(finding.kind, _CONVERT)} pass allow=[{finding.kind!r}]")
