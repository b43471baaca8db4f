"""SECURE_ML_MTLS_CLIENTS: valid values, and the normal form in which names are compared."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from cryptography.x509 import Name, NameAttribute, RelativeDistinguishedName
from cryptography.x509.oid import NameOID
from marshmallow import ValidationError

from flask_secure_ml.config.clients import MtlsClient, ascii_lower, clients_field
from flask_secure_ml.policy.schema import sentences

DIGITS = "0123456789abcdef" * 4


def test_a_complete_entry() -> None:
    """Every option arrives; scopes and plan have defaults."""
    entries = [
        {"client": "trainer", "scopes": ["predict"], "plan": "big", "san_dns": "trainer.example"},
        {"client": "other", "sha256": DIGITS},
    ]
    trainer, other = clients_field().deserialize(entries)
    assert trainer == MtlsClient("trainer", frozenset({"predict"}), "big", san_dns="trainer.example")
    assert (other.scopes, other.plan) == (frozenset(), "default")


COMMON = NameAttribute(NameOID.COMMON_NAME, "trainer")
ORGANIZATION = NameAttribute(NameOID.ORGANIZATION_NAME, "Example, Inc.")


@pytest.mark.parametrize(
    ("name", "value", "compared"),
    [
        pytest.param("subject_dn", "CN=trainer,O=Example\\, Inc.", Name([ORGANIZATION, COMMON]), id="order"),
        pytest.param(
            "subject_dn",
            "CN=trainer+O=Example\\, Inc.",
            Name([RelativeDistinguishedName([ORGANIZATION, COMMON])]),
            id="two attributes in one step",
        ),
        pytest.param(
            "subject_dn",
            "emailAddress=a@b.example,CN=trainer",
            Name([COMMON, NameAttribute(NameOID.EMAIL_ADDRESS, "a@b.example")]),
            id="short name of OpenSSL",
        ),
        pytest.param("san_dns", "Trainer.EXAMPLE", "trainer.example", id="DNS in any case"),
        pytest.param("san_uri", "spiffe://Example/Trainer", "spiffe://Example/Trainer", id="URI as it is"),
        pytest.param("san_ip", "2001:DB8:0::1", ip_address("2001:db8::1"), id="IPv6 in any spelling"),
        pytest.param("san_ip", "192.0.2.1", ip_address("192.0.2.1"), id="IPv4"),
        pytest.param("san_email", "Trainer@example.com", "Trainer@example.com", id="email as it is"),
        pytest.param("sha256", DIGITS, DIGITS, id="fingerprint"),
        pytest.param("sha256", ":".join(["AB"] * 32), "ab" * 32, id="fingerprint of OpenSSL"),
    ],
)
def test_the_form_of_comparison(name: str, value: str, compared: Any) -> None:
    """Every spelling of one name is one identity."""
    (client,) = clients_field().deserialize([{"client": "trainer", name: value}])
    assert client.named_by == (name, value)
    assert client.identity == (name, compared)


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        pytest.param({"client": "a"}, "must be a list of objects, not one object; put it in a list", id="an object"),
        pytest.param("a", "must be a list of objects, not a string", id="a string"),
        pytest.param([5], "[0]: must be an object, not 5", id="entry is no object"),
        pytest.param([{"sha256": DIGITS}], "[0].client: is missing", id="no client"),
        pytest.param([{"client": "a", "sha1": "x"}], "[0].sha1: is not known", id="unknown member"),
        pytest.param([{"client": "a", "sha265": "x"}], "[0].sha265: is not known; did you mean sha256?", id="unknown"),
        pytest.param([{"client": "", "sha256": DIGITS}], "[0].client: must be a non-empty string", id="empty client"),
        pytest.param(
            [{"client": 5, "sha256": DIGITS}], "[0].client: must be a non-empty string", id="client is a number"
        ),
        pytest.param([{"client": "a"}], "[0]: requires exactly one of", id="no name"),
        pytest.param([{"client": "a", "san_dns": "a", "san_uri": "a:b"}], "[0]: requires exactly one", id="two names"),
        pytest.param(
            [{"client": "a", "sha256": DIGITS, "scopes": "predict"}], "[0].scopes: must be a list", id="scopes a string"
        ),
        pytest.param([{"client": "a", "sha256": DIGITS, "scopes": ["a b"]}], "6749", id="scope with a space"),
        pytest.param([{"client": "a", "sha256": DIGITS[1:]}], "[0].sha256: must be 64", id="fingerprint too short"),
        pytest.param([{"client": "a", "sha256": "g" + DIGITS[1:]}], "[0].sha256: must be 64", id="not hexadecimal"),
        pytest.param([{"client": "a", "subject_dn": "trainer"}], "RFC 4514", id="no attribute"),
        pytest.param([{"client": "a", "subject_dn": "/CN=trainer"}], "RFC 4514", id="old form of OpenSSL"),
        pytest.param([{"client": "a", "subject_dn": "CN=trainer, O=Example"}], "RFC 4514", id="space in the subject"),
        pytest.param([{"client": "a", "subject_dn": "CN=#0c0161"}], "hexadecimal", id="hexadecimal value"),
        pytest.param([{"client": "a", "subject_dn": "C=Germany"}], "RFC 4514", id="country of seven letters"),
        pytest.param([{"client": "a", "san_dns": "*.example"}], "wildcard", id="wildcard"),
        pytest.param([{"client": "a", "san_dns": "a..example"}], "one DNS name", id="empty label"),
        pytest.param([{"client": "a", "san_dns": "m\u00fcller.example"}], "ASCII", id="DNS beyond ASCII"),
        pytest.param([{"client": "a", "san_uri": "trainer"}], "absolute URI", id="no scheme"),
        pytest.param([{"client": "a", "san_uri": "spiffe://a b"}], "absolute URI", id="space in the URI"),
        pytest.param([{"client": "a", "san_uri": "spiffe://[a"}], "[0].san_uri: must be an absolute", id="broken URI"),
        pytest.param([{"client": "a", "san_ip": "192.0.2.0/24"}], "IP address", id="network"),
        pytest.param([{"client": "a", "san_ip": "localhost"}], "IP address", id="host name for an address"),
        pytest.param([{"client": "a", "san_email": "trainer"}], "email", id="no at sign"),
        pytest.param([{"client": "a", "san_email": "a@b@c"}], "email", id="two at signs"),
        pytest.param(
            [{"client": "a", "sha256": DIGITS}, {"client": "a", "san_dns": "a"}],
            "[1].client: is the same as in entry 0; name each client and certificate once",
            id="one client twice",
        ),
        pytest.param(
            [{"client": "a", "san_dns": "a.b"}, {"client": "b", "san_dns": "A.B"}],
            "[1].san_dns: is the same as in entry 0",
            id="one name twice",
        ),
        pytest.param(
            [{"client": "a", "sha256": "ab" * 32}, {"client": "b", "sha256": ":".join(["AB"] * 32)}],
            "[1].sha256: is the same as in entry 0",
            id="one fingerprint twice",
        ),
        pytest.param(
            [{"client": "a", "sha256": DIGITS}, 5, {"client": "a", "san_dns": "a"}],
            "[2].client: is the same as in entry 0",
            id="twice beside a wrong one",
        ),
    ],
)
def test_what_is_rejected(entries: Any, problem: str) -> None:
    """Each problem has the path to its option."""
    with pytest.raises(ValidationError) as caught:
        clients_field().deserialize(entries)
    assert any(problem in line for line in sentences(caught.value.messages, "MTLS_CLIENTS"))


def test_letters_that_only_look_like_ascii() -> None:
    """The Kelvin sign is a K in lower case, which must not make it one here."""
    assert ascii_lower("\u212aube.example") == "\u212aube.example"
    assert ascii_lower("KUBE.example") == "kube.example"
