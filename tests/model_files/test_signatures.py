"""OpenSSF model signatures, made and checked by the package model-signing with local keys."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flask_secure_ml.model_files import (
    ModelFileError,
    UnreadableModel,
    UnsafeModel,
    UnverifiedModel,
    load_verified,
    load_verified_copy,
    load_verified_directory,
)
from flask_secure_ml.model_files.integrity import PREDICATE
from model_samples import sample


def bundle(*names: str, predicate: str = PREDICATE, method: str = "files") -> str:
    """Return an unsigned bundle."""
    members = {"serialization": {"method": method}, "resources": [{"name": name} for name in names]}
    statement = json.dumps({"predicateType": predicate, "predicate": members})
    return json.dumps({"dsseEnvelope": {"payload": base64.b64encode(statement.encode()).decode()}})


@dataclass
class Verifier:
    """A verifier with a prepared outcome, which records its calls."""

    error: Exception | None = None
    shown: bytes = b""

    def verify(self, model_path: Path, signature_path: Path, /) -> None:
        assert signature_path.read_bytes()
        self.shown = b"".join(
            file.read_bytes() for file in sorted([model_path, *model_path.rglob("*")]) if file.is_file()
        )
        if self.error:
            raise self.error


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(sample("data: ONNX"))
    return path


@pytest.fixture
def signature(tmp_path: Path) -> Path:
    path = tmp_path / "model.sig"
    path.write_text(bundle("."))
    return path


def read(stream: Any) -> bytes:
    return bytes(stream.read())


def never(_: object) -> None:
    pytest.fail("the loader was called")


def test_verifier_sees_what_the_loader_gets(model: Path, signature: Path) -> None:
    """The verifier is shown a copy of the bytes that were read."""
    verifier = Verifier()
    loaded = load_verified(model, loader=read, signature=signature, signed_by=verifier)
    assert loaded == verifier.shown == model.read_bytes()


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("a"), TypeError(), OSError("gone")], ids=repr)
def test_whatever_a_verifier_raises_rejects(model: Path, signature: Path, error: Exception) -> None:
    """Only a verifier that returns has vouched for the model."""
    with pytest.raises(UnverifiedModel, match=f"not a valid signature of it .{type(error).__name__}"):
        load_verified(model, loader=never, signature=signature, signed_by=Verifier(error))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{}", id="no envelope"),
        pytest.param("[" * 100_000, id="nested deep"),
        pytest.param(
            bundle(".", predicate="https://model_signing/Digests/v0.1"), id="a predicate that may leave files out"
        ),
        pytest.param('{"dsseEnvelope": {"payload": "/w=="}}', id="payload not UTF-8"),
    ],
)
def test_signature_that_names_nothing(model: Path, signature: Path, text: str) -> None:
    """A bundle without a statement of version 1.0 is not a signature."""
    signature.write_text(text or " ")
    with pytest.raises(UnverifiedModel, match="not a valid signature"):
        load_verified(model, loader=never, signature=signature, signed_by=Verifier())


def test_signature_and_digest_must_both_hold(model: Path, signature: Path) -> None:
    """A signature does not make up for a wrong digest."""
    with pytest.raises(UnverifiedModel, match="instead of"):
        load_verified(model, loader=never, sha256="0" * 64, signature=signature, signed_by=Verifier())


def test_signed_pickle_is_rejected(model: Path, signature: Path) -> None:
    """A signature proves who made a pickle, not what it does."""
    model.write_bytes(sample("pickle: protocol 4 that calls"))
    with pytest.raises(UnsafeModel, match="is a pickle"):
        load_verified(model, loader=never, signature=signature, signed_by=Verifier())


def test_missing_signature(model: Path, tmp_path: Path) -> None:
    """A signature that is not there is named."""
    with pytest.raises(UnreadableModel, match=r"gone\.sig"):
        load_verified(model, loader=never, signature=tmp_path / "gone.sig", signed_by=Verifier())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param(bundle("a", "b/c"), ["a", "b/c"], id="all"),
        pytest.param(bundle("b/c"), ["b/c"], id="some"),
        pytest.param(bundle("a:0:1", "a:1:2", method="shards"), ["a"], id="shards"),
        pytest.param(bundle(), [], id="none"),
    ],
)
def test_files_that_were_not_signed(tmp_path: Path, text: str, names: list[str]) -> None:
    """Files of a directory that the signature does not cover are left out."""
    (tmp_path / "model" / "b").mkdir(parents=True)
    (tmp_path / "model" / "a").write_bytes(b"11")
    (tmp_path / "model" / "b" / "c").write_bytes(b"2")
    (tmp_path / "model.sig").write_text(text)
    verifier = Verifier()
    loaded = load_verified_directory(
        tmp_path / "model", loader=list, signature=tmp_path / "model.sig", signed_by=verifier
    )
    assert (loaded, verifier.shown) == (names, b"112")


def test_weights_that_were_not_signed(tmp_path: Path) -> None:
    """An ONNX model whose weights are not signed is rejected, although they are in its directory."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(sample("external: ONNX initializer"))
    (tmp_path / "model" / "weights.bin").write_bytes(bytes(4))
    for names, error in (["model.onnx"], UnsafeModel), (["model.onnx", "weights.bin"], None):
        (tmp_path / "model.sig").write_text(bundle(*names))
        arguments: Any = {"signature": tmp_path / "model.sig", "signed_by": Verifier()}
        if error:
            with pytest.raises(error, match="read unverified files"):
                load_verified_copy(tmp_path / "model", loader=never, **arguments)
        else:
            assert load_verified_copy(tmp_path / "model", loader=Path.is_dir, **arguments)


def test_without_model_signing(model: Path, signature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error names it."""
    monkeypatch.setitem(sys.modules, "model_signing.verifying", None)
    with pytest.raises(ModelFileError, match=r"pip install 'flask-secure-ml\[models\]'"):
        load_verified(model, loader=never, signature=signature, signed_by="key.pub")


def key_pair(folder: Path, curve: ec.EllipticCurve, name: str = "key") -> tuple[Path, Path]:
    key = ec.generate_private_key(curve)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(encoding, form))
    return private, public


@pytest.fixture
def sign(tmp_path: Path) -> Callable[..., Path]:
    signing = pytest.importorskip("model_signing.signing")

    def signed(path: Path, private: Path, hashing: Any = None) -> Path:
        config = signing.Config().use_elliptic_key_signer(private_key=private)
        if hashing is not None:
            config.set_hashing_config(hashing)
        config.sign(path, tmp_path / "real.sig")
        return tmp_path / "real.sig"

    return signed


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_real_signature(tmp_path: Path, model: Path, sign: Callable[..., Path], curve: ec.EllipticCurve) -> None:
    """A model is loaded by its signature; of the model, the signature and the key, none can be another."""
    private, public = key_pair(tmp_path, curve)
    signature, data = sign(model, private), model.read_bytes()
    assert load_verified(model, loader=read, signature=signature, signed_by=public) == data

    _, stranger = key_pair(tmp_path, curve, "stranger")
    with pytest.raises(UnverifiedModel, match="not a valid signature"):
        load_verified(model, loader=never, signature=signature, signed_by=stranger)

    model.write_bytes(data + b"\0")
    with pytest.raises(UnverifiedModel, match="not a valid signature"):
        load_verified(model, loader=never, signature=signature, signed_by=public)


def test_real_signature_with_another_payload(tmp_path: Path, model: Path, sign: Callable[..., Path]) -> None:
    """The statement is part of the signed data."""
    private, public = key_pair(tmp_path, ec.SECP256R1())
    signature = sign(model, private)
    members = json.loads(signature.read_text())
    payload = base64.b64decode(members["dsseEnvelope"]["payload"]).replace(b"model.onnx", b"other.onnx")
    members["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    signature.write_text(json.dumps(members))
    with pytest.raises(UnverifiedModel, match="InvalidSignature"):
        load_verified(model, loader=never, signature=signature, signed_by=public)


@pytest.mark.parametrize("curve", [None, ec.SECP256K1()], ids=["no key", "curve that is not used"])
def test_unusable_key(tmp_path: Path, model: Path, signature: Path, curve: ec.EllipticCurve | None) -> None:
    """The message names a key file without a usable key."""
    pytest.importorskip("model_signing.verifying")
    public = key_pair(tmp_path, curve)[1] if curve else tmp_path / "gone.pub"
    with pytest.raises(UnverifiedModel, match=r"\.pub is not a public key"):
        load_verified(model, loader=never, signature=signature, signed_by=public)


def test_real_signature_of_a_directory(tmp_path: Path, sign: Callable[..., Path]) -> None:
    """A directory is loaded without files ignored by its signer, and rejected with an additional file."""
    private, public = key_pair(tmp_path, ec.SECP256R1())
    path = tmp_path / "saved"
    (path / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/a", ".gitignore"):
        (path / name).write_bytes(name.encode())
    signature = sign(path, private)
    loaded = load_verified_directory(path, loader=list, signature=signature, signed_by=public)
    assert loaded == ["saved_model.pb", "variables/a"]
    (path / "variables" / "b").touch()
    with pytest.raises(UnverifiedModel, match="Extra files"):
        load_verified_directory(path, loader=never, signature=signature, signed_by=public)


def test_configured_verifier(tmp_path: Path, model: Path, sign: Callable[..., Path]) -> None:
    """A model-signing configuration supports more than a key, such as sharded hashes."""
    verifying = pytest.importorskip("model_signing.verifying")
    hashing = pytest.importorskip("model_signing.hashing")
    private, public = key_pair(tmp_path, ec.SECP256R1())
    signature = sign(model, private, hashing.Config().use_shard_serialization(shard_size=50))
    config = verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.set_hashing_config(hashing.Config().use_shard_serialization(shard_size=50))
    assert load_verified(model, loader=read, signature=signature, signed_by=config) == model.read_bytes()
