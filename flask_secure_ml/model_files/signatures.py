"""Signatures of models: OpenSSF Model Signing, checked by the package ``model-signing``.

A signature is a Sigstore bundle with a DSSE envelope; its payload is an in-toto statement with the predicate
``https://model_signing/signature/v1.0``, which lists the digest of each file (OpenSSF Model Signing specification v1.0,
https://github.com/ossf/model-signing-spec). It is checked with a public key, or by a configuration of
``model_signing.verifying``: an identity at Sigstore, or a chain of certificates.
"""

from __future__ import annotations

import importlib
import json
import os
from base64 import b64decode
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from .errors import ModelFileError, UnverifiedModel
from .files import Files, read_file, verified_copy

MAX_SIGNATURE = 1 << 26
PREDICATE = "https://model_signing/signature/v1.0"

_MAX_REASON = 200


class SignatureVerifier(Protocol):
    """What checks a signature: ``model_signing.verifying.Config``, after one of its ``use_*_verifier`` methods."""

    def verify(self, model_path: Path, signature_path: Path, /) -> object:
        """Raise any exception unless this is a signature of exactly this file or directory."""


Signer = str | os.PathLike[str] | SignatureVerifier


def check_file(path: Path, data: bytes, signature: Path, signed_by: Signer) -> None:
    """Check that a signature is of these bytes.

    A verifier works on paths, so it gets a private copy of what was read; of the signature too.

    :param path: the model, for errors.
    :param signed_by: the PEM file of a public key (P-256, P-384 or P-521), or a verifier.
    :raises UnverifiedModel: the signature is of other bytes or by another key.
    :raises ModelFileError: ``model-signing`` is not installed, or the signature cannot be read.
    """
    with verified_copy({"model": data}) as folder:
        _check(path, folder / "model", signature, signed_by)


def check_directory(path: Path, files: Files, signature: Path, signed_by: Signer) -> Files:
    """Check that a signature is of these files, and return those that it covers.

    A signer may have left files out, such as ``.git`` or the signature itself. Nobody vouched for these, so they are
    not part of the model.

    :raises UnverifiedModel: the signature is of other files or by another key.
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
        except Exception as error:  # noqa: BLE001  whatever went wrong, nobody vouched for these bytes
            problem = f"{signature} is not a valid signature of it ({type(error).__name__}: {str(error)[:_MAX_REASON]})"
            remedy = "Restore the files that were signed, or have this model signed by the key that is trusted"
            raise UnverifiedModel(path, problem, remedy) from None


def _signed_names(bundle: bytes) -> frozenset[str]:
    """Return the names in the statement of a bundle; only the current predicate names everything."""
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
        raise ModelFileError(path, "checking its signature needs the package model-signing", remedy) from None
    try:
        verifier: SignatureVerifier = verifying.Config().use_elliptic_key_verifier(public_key=Path(key))
    except Exception as error:
        problem = f"{os.fspath(key)} is not a public key that can check its signature ({str(error)[:_MAX_REASON]})"
        raise UnverifiedModel(path, problem, "Name the PEM file of a P-256, P-384 or P-521 public key") from error
    return verifier
