"""Loading models whose digest or signature is verified."""

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
    "Convert the model to ONNX, safetensors, skops or plain arrays; or, if you trust its makers with this process,"
)
_REMEDIES = {
    "external": (
        "Save the model in one file; or keep the files of an ONNX model in one directory, and load that with "
        "load_verified_copy; or, if you trust whoever can write those files with this process,"
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
    """Load a model file, after its digest or signature was verified, if loading it runs no code.

    The file is read once. What was read is verified, then examined for formats that run code (OWASP ASVS 5.0 1.5.2,
    CWE-502) or read other files (CWE-610), then given to the loader, so that a file that is swapped in between changes
    nothing (CWE-367). The loader never gets the path. A digest or signature proves who made a file, not that it is
    harmless: both checks are made.

    :param loader: makes the model of an :class:`io.BytesIO` with the verified bytes, such as :func:`numpy.load`.
        What it raises is not caught.
    :param sha256: the digest, 64 hexadecimal digits from a source that whoever can write the model cannot write; or
        the path of a digest file, see :func:`read_digest`.
    :param signature: the file with an OpenSSF model signature (extra ``[models]``).
    :param signed_by: whose signature: the PEM file of a public key, or a configured
        ``model_signing.verifying.Config`` for Sigstore identities and certificates.
    :param max_bytes: reject a larger file before reading it, and one that expands to more. The whole file is kept in
        memory.
    :param allow: what may be in the file although it can run code or read other files, by the names in :data:`KINDS`.
    :raises UnreadableModel: the file is missing, too large, or not a plain file.
    :raises UnverifiedModel: neither a digest nor a signature was given, or one of them does not match.
    :raises UnsafeModel: loading it could run code, or read other files, and ``allow`` does not name that.
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
    """Load a model that is a directory, such as a SavedModel, as :func:`load_verified` does.

    Symbolic links in it are rejected.

    :param loader: makes the model of a mapping from relative paths (with ``/``) to the verified bytes. For a loader
        that only takes a path there is :func:`verified_copy`.
    :param sha256: the digest of the directory, see :func:`directory_digest`; or a digest file that names it.
    :param signature: an OpenSSF model signature of the directory; files that it does not cover are left out.
    :param max_bytes: the most bytes of all files together.
    :raises UnreadableModel: it is missing, empty or too large, or has a symbolic link or a device.
    :raises UnverifiedModel: as for a file.
    :raises UnsafeModel: loading one of its files could run code that ``allow`` does not name.
    :raises ValueError: as for a file.
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
    """Load a model that is a directory from a private copy of its verified files.

    An ONNX model may name other files for its tensors here, if they are verified files of the same directory: the
    library takes them from beside the model, and beside it in the copy there is nothing else.

    :param loader: makes the model of the path of the copy. The copy is deleted when it returns, so it must have read
        everything by then.
    :raises UnsafeModel: loading one of its files could run code, or reads a file that is not among them, and ``allow``
        does not name that.

    Everything else is as for :func:`load_verified_directory`.
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
        raise ValueError("signature and signed_by go together: a signature proves nothing without its signer")
    unknown = {allow} if isinstance(allow, str) else set(allow) - set(KINDS)
    if unknown:
        raise ValueError(f"allow is a list of names among {', '.join(KINDS)}; not {', '.join(sorted(unknown))}")
    if sha256 is None and signature is None:
        remedy = f"Pass sha256=, which `flask secure-ml model digest {path}` prints where the model was made"
        raise UnverifiedModel(path, "it has no expected digest or signature", f"{remedy}, or signature= and signed_by=")


def _reject_code(path: Path, data: bytes, limit: int, allow: Collection[str]) -> None:
    for finding in find_code(data, limit):
        _reject(path, finding, allow)


def _reject_config(path: Path, data: bytes, allow: Collection[str]) -> None:
    # Unpacked, a Keras model is a directory of what its archive had.
    if path.name == "config.json" and config_holds_code(data):
        _reject(path, Finding("keras-lambda", ()), allow)


def _reject(path: Path, finding: Finding, allow: Collection[str]) -> None:
    if finding.kind not in allow:
        problem = f"it is {finding}, and loading that can {finding.consequence}"
        raise UnsafeModel(path, problem, f"{_REMEDIES.get(finding.kind, _CONVERT)} pass allow=[{finding.kind!r}]")
