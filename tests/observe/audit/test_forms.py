"""Canonical records, the tree of RFC 6962, checkpoints of C2SP, and keys."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.observe.audit.checkpoint import _parsed, _verifies, notes_in, sign, verifier_key
from flask_secure_ml.observe.audit.export import as_cef, as_ecs
from flask_secure_ml.observe.audit.keys import (
    APP_KEYS,
    KeyFileError,
    load_app_keys,
    load_verification_key,
    mac_of,
    make_keys,
    next_key,
)
from flask_secure_ml.observe.audit.records import BrokenLineError, canonical, checked, line_of, parse, split_line
from flask_secure_ml.observe.audit.sinks import one_line
from flask_secure_ml.observe.audit.tree import Tree, leaf_hash
from flask_secure_ml.observe.audit.verify_index import outside_checkpoints

# The example of RFC 8785 section 3.2.2, without its numbers that are no integers.
RFC_8785 = ({"string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/", "literals": [None, True, False]},)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=50)
MEMBERS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_.:-]{1,20}", fullmatch=True),
    SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=3), max_size=3),
    max_size=8,
)


def test_rfc_8785() -> None:
    """Members by name, no white space, the escapes of RFC 8785 section 3.2.2.2, and the rest as it is."""
    expected = rb'{"literals":[null,true,false],"string":"' + "€".encode() + rb"""$\u000f\nA'B\"\\\\\"/"}"""
    assert canonical(RFC_8785[0]) == expected


@given(MEMBERS)
def test_canonical_is_what_python_says(members: dict[str, Any]) -> None:
    """The form equals that of a second implementation, and parses to the recorded values."""
    members = checked(members)
    found = canonical(members)
    assert found == json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert parse(found) == members
    assert split_line(line_of("a" * 64, found)) == ("a" * 64, found)


@pytest.mark.parametrize(
    "record",
    [b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1,"a":1}', b'{"a":"\\u0041"}', b"[]", b"", b'{"a":1} ', b'{"a":1.0e1}'],
)
def test_one_form_only(record: bytes) -> None:
    """The same record in another form is not valid."""
    with pytest.raises(BrokenLineError):
        parse(record)


def test_the_tree_of_rfc_6962() -> None:
    """The roots of the reference test of Certificate Transparency, for each size up to 8 leaves."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    tree = Tree()
    found = [tree.root().hex()]
    for leaf in leaves:
        tree.append(bytes.fromhex(leaf))
        found.append(tree.root().hex())
        assert Tree(tree.size, tree.hashes).root() == tree.root()
    assert found == roots


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_tree_is_its_definition(leaves: list[bytes]) -> None:
    """RFC 6962 section 2.1, computed as it is written there."""

    def root(part: list[bytes]) -> bytes:
        if len(part) <= 1:
            return leaf_hash(part[0]) if part else hashlib.sha256().digest()
        split = 1 << (len(part) - 1).bit_length() - 1
        return hashlib.sha256(b"\x01" + root(part[:split]) + root(part[split:])).digest()

    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    assert tree.root() == root(leaves)


def test_the_checkpoint_of_c2sp() -> None:
    """The lines of tlog-checkpoint, the signature line of signed-note, and its key id."""
    key = Ed25519PrivateKey.generate()
    tree = Tree()
    tree.append(b"leaf")
    note = sign(tree, "example.com/log", key)
    body, _, signature = note.partition("\n\n")
    assert body.split("\n") == ["example.com/log", "1", base64.b64encode(tree.root()).decode()]
    dash, name, encoded = signature.rstrip("\n").split(" ")
    raw = base64.b64decode(encoded)
    public = key.public_key().public_bytes_raw()
    assert (dash, name) == ("\u2014", "example.com/log")
    assert raw[:4] == hashlib.sha256(b"example.com/log\n\x01" + public).digest()[:4]
    Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], f"{body}\n".encode())
    assert verifier_key("example.com/log", key) == (
        f"example.com/log+{raw[:4].hex()}+{base64.b64encode(bytes([1]) + public).decode()}"
    )


def test_lines_of_extensions(tmp_path: Path) -> None:
    """A note may have sixteen. A file of nothing but beginnings of notes is read in a time that grows with its size."""
    make_keys(tmp_path / "log", tmp_path / "key", "tests/audit")
    signing, verifier = load_app_keys(tmp_path / "log").signing, load_verification_key(tmp_path / "key").verifier
    tree = Tree()
    tree.append(b"leaf")
    note = sign(tree, "tests/audit", signing)
    body, _, signature = note.partition("\n\n")
    assert [each is not None for each in notes_in(note, verifier)] == [True]
    for count, found in ((16, [None]), (17, [])):
        assert list(notes_in("\n".join([body, *["x"] * count, "", signature]), verifier)) == found
    assert list(notes_in(f"{body}\n" * 40_000, verifier)) == []


def test_the_example_of_signed_note() -> None:
    """The key and the signature that the documentation of Go's package ``note`` shows: another implementation's."""
    name, public = _parsed("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    encoded = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    assert _verifies(public, name, text, f"\N{EM DASH} PeterNeumann {encoded}")
    assert not _verifies(public, name, text.upper(), f"\N{EM DASH} PeterNeumann {encoded}")
    assert not _verifies(public, name, text, f"\N{EM DASH} Somebody {encoded}")


def test_checkpoints_in_syslog(tmp_path: Path) -> None:
    """Checkpoints are found after any prefix of a collector."""
    make_keys(tmp_path / "log", tmp_path / "key", "tests/audit")
    key = load_verification_key(tmp_path / "key")
    notes = []
    tree = Tree()
    for _ in range(3):
        tree.append(b"leaf")
        notes.append(sign(tree, "tests/audit", load_app_keys(tmp_path / "log").signing))
    lines = [
        f"<109>1 2027-01-15T08:00:00.000Z host flask-secure-ml 7 checkpoint - \ufeff{one_line(notes[0])}",
        f"Jan 15 08:00:00 host flask-secure-ml[7]: {one_line(notes[1])}",
        notes[2],
    ]
    found = list(outside_checkpoints("\n".join(lines), key))
    assert [each.size for each in found if each is not None] == [1, 2, 3]


def test_keys(tmp_path: Path) -> None:
    """The files are private; the app cannot open sealed keys; a header belongs to its key."""
    make_keys(tmp_path / "log", tmp_path / "key", "tests/audit")
    app, offline = load_app_keys(tmp_path / "log"), load_verification_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700
    for path in (tmp_path / "key", tmp_path / "log" / APP_KEYS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    header, other = {"seq": 0, "stream": "a"}, {"seq": 1, "stream": "a"}
    sealed = app.seal(b"k" * 32, header)
    assert offline.unseal(sealed, header) == b"k" * 32
    assert [offline.unseal(each, header) for each in ("", "AAAA", "?", sealed[:-4])] == [None] * 4
    assert offline.unseal(sealed, other) is None
    signature = app.sign_header(header, sealed)
    assert offline.verifies(signature, header, sealed)
    assert not offline.verifies(signature, other, sealed)
    assert not offline.verifies("?", header, sealed)
    secrets = [(tmp_path / "key").read_text(), (tmp_path / "log" / APP_KEYS).read_text()]
    assert json.loads(secrets[0])["sealing"] not in secrets[1]
    assert json.loads(secrets[1])["signing"] not in repr(app) + repr(offline)


def test_keys_that_cannot_be_written(tmp_path: Path) -> None:
    """No file is left, so that the command can be repeated."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / APP_KEYS).symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        make_keys(tmp_path / "log", tmp_path / "key", "tests/audit")
    assert not (tmp_path / "key").exists()


def test_keys_that_others_can_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Are used, with a warning."""
    make_keys(tmp_path / "log", tmp_path / "key", "tests/audit")
    load_app_keys(tmp_path / "log")
    assert caplog.messages == []
    (tmp_path / "log" / APP_KEYS).chmod(0o640)
    load_app_keys(tmp_path / "log")
    assert "chmod 600" in caplog.text


def test_keys_are_used_once() -> None:
    """The key of the next record is computed from this one, not the other way; codes are HMAC-SHA-256 (RFC 4231)."""
    first = bytes(32)
    assert len({first, next_key(first), next_key(next_key(first))}) == 3
    assert mac_of(b"\x0b" * 20, b"Hi There") == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"origin": "a"}', '{"verifier": "a+b+c", "sealing": ""}'])
def test_damaged_key_files(tmp_path: Path, content: str | None) -> None:
    """Are named, without a traceback and without their content."""
    (tmp_path / "log").mkdir()
    for path in (tmp_path / "key", tmp_path / "log" / APP_KEYS):
        if content is not None:
            path.write_text(content)
    with pytest.raises(KeyFileError, match="key"):
        load_verification_key(tmp_path / "key")
    with pytest.raises(KeyFileError, match=r"keys\.json"):
        load_app_keys(tmp_path / "log")


RECORD = {
    "action": "request",
    "client": "a=b|c",
    "code": "not_authenticated",
    "duration_us": 1500,
    "endpoint": "predict",
    "method": "POST",
    "network": "192.0.2.1",
    "principal": "api_key:x",
    "prev": "0" * 64,
    "reason": "wrong = secret",
    "request_id": "r1",
    "seq": 3,
    "status": 401,
    "stream": "s",
    "time": "2027-01-15T08:00:00.000000Z",
}


def test_ecs() -> None:
    """The fields of the Elastic Common Schema, and a namespace for all others."""
    assert as_ecs(RECORD) == {
        "@timestamp": "2027-01-15T08:00:00.000000Z",
        "client": {"address": "192.0.2.1", "ip": "192.0.2.1"},
        "ecs": {"version": "8.11.0"},
        "error": {"code": "not_authenticated"},
        "event": {
            "action": "request",
            "category": ["web"],
            "duration": 1_500_000,
            "kind": "event",
            "module": "flask_secure_ml",
            "outcome": "failure",
            "reason": "wrong = secret",
            "sequence": 3,
        },
        "flask_secure_ml": {"endpoint": "predict", "prev": "0" * 64, "stream": "s"},
        "http": {"request": {"id": "r1", "method": "POST"}, "response": {"status_code": 401}},
        "user": {"id": "api_key:x", "name": "a=b|c"},
    }


def test_cef() -> None:
    """One line; equals signs in values and bars in the head are escaped."""
    line = as_cef(RECORD | {"action": "a|b"})
    assert line == (
        r"CEF:0|flask-secure-ml|flask-secure-ml|1|a\|b|a\|b 401|7|rt=1800000000000 src=192.0.2.1 suser=api_key:x "
        r"requestMethod=POST request=predict outcome=401 reason=wrong \= secret externalId=r1 cs1=s cs1Label=stream "
        r"cn1=3 cn1Label=seq cs2=not_authenticated cs2Label=code msg=client: a\=b|c, duration_us: 1500"
    )


ANOMALY = {
    "action": "anomaly",
    "explanation": "40 times its usual rows",
    "kind": "principal",
    "prev": "0" * 64,
    "signal": "rows",
    "stream": "s",
    "subject": "api_key:x",
    "time": "2027-01-15T08:00:00.000000Z",
}
REVOKED = {"action": "key_revoked", "client": "batch", "key": "4fGh", "user": "root", "scopes": ["a", "b"]}


@pytest.mark.parametrize(
    ("record", "extension"),
    [
        (
            ANOMALY,
            "cs1=s cs1Label=stream msg=40 times its usual rows, kind: principal, signal: rows, subject: api_key:x",
        ),
        (REVOKED, "suser=root msg=client: batch, key: 4fGh, user: root, scopes: a b"),
        ({"action": "block", "message": "network 192.0.2.1 blocked"}, "msg=network 192.0.2.1 blocked"),
        ({"action": "stop"}, ""),
    ],
    ids=["anomaly", "operator", "message", "nothing"],
)
def test_cef_of_an_event(record: dict[str, Any], extension: str) -> None:
    """No member is lost: those without a key of their own are in the message."""
    assert as_cef(record).rpartition("|")[2].removeprefix("rt=1800000000000 ") == extension


def test_ecs_of_an_event() -> None:
    """The user is the operator, not the client of the key."""
    document = as_ecs(REVOKED)
    assert document["user"] == {"name": "root"}
    assert document["flask_secure_ml"] == {"client": "batch", "key": "4fGh", "scopes": ["a", "b"]}


@pytest.mark.parametrize(
    ("network", "ecs", "cef"),
    [
        ("2001:db8::", {"address": "2001:db8::", "ip": "2001:db8::"}, "c6a2=2001:db8:: c6a2Label=Source IPv6 Address"),
        ("unknown", {"address": "unknown"}, ""),
    ],
    ids=["ipv6", "unix_socket"],
)
def test_addresses(network: str, ecs: dict[str, str], cef: str) -> None:
    """Only IP addresses are in fields of that type; collectors reject other values."""
    record = {"action": "request", "network": network}
    assert as_ecs(record)["client"] == ecs
    assert as_cef(record).rpartition("|")[2] == cef
