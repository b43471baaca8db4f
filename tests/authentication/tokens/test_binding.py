"""Every case of ``tests/corpus/binding``: the binding of a token, and the proof or certificate sent with it."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_secure_ml.authentication.tokens.authenticator import check_binding
from flask_secure_ml.errors import InvalidProof, NotAuthenticated

CORPUS = Path(__file__).parents[2] / "corpus" / "binding"
PROOFS = {None: None, "own": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", "other": "A" * 43}
CERTIFICATES = {None: None, "own": b"the certificate in DER", "other": b"another one", "empty": b""}
OWN = hashlib.sha256(b"the certificate in DER")
NAMES = {
    "{jkt}": str(PROOFS["own"]),
    "{cut}": str(PROOFS["own"])[:-1],
    "{lower}": str(PROOFS["own"]).lower(),
    "{x5t}": urlsafe_b64encode(OWN.digest()).rstrip(b"=").decode(),
    "{hex}": OWN.hexdigest(),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["jkt", "x5t#S256", "x"]) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def cases() -> list[Any]:
    found = [case for path in sorted(CORPUS.glob("*.json")) for case in json.loads(path.read_text())]
    return [pytest.param(case, id=case["id"]) for case in found]


def filled(value: Any) -> Any:
    text = json.dumps(value)
    for name, meant in NAMES.items():
        text = text.replace(name, meant)
    return json.loads(text)


@pytest.mark.parametrize("case", cases())
def test_binding(case: dict[str, Any]) -> None:
    """A token is accepted if all its bindings hold, and with the scheme DPoP only if it is bound to a key."""
    confirmation, proof, certificate = filled(case["cnf"]), PROOFS[case["proof"]], CERTIFICATES[case["certificate"]]
    if case["reason"] is None:
        check_binding(confirmation, thumbprint=proof, certificate=certificate)
        return
    with pytest.raises(NotAuthenticated) as caught:
        check_binding(confirmation, thumbprint=proof, certificate=certificate)
    assert case["reason"] in caught.value.reason
    # RFC 9449 section 7.1, RFC 8705 section 3: it is the token that is at fault, not the proof.
    assert caught.value.oauth_error == "invalid_token"
    assert not isinstance(caught.value, InvalidProof)


@given(confirmation=JSON, proof=st.sampled_from(sorted(PROOFS, key=str)), certificate=st.sampled_from([None, b"x"]))
def test_anything(confirmation: Any, proof: str | None, certificate: bytes | None) -> None:
    """Whatever an issuer writes in ``cnf``, only its absence makes a bearer token."""
    try:
        check_binding(confirmation, thumbprint=PROOFS[proof], certificate=certificate)
    except NotAuthenticated:
        return
    assert confirmation is None
    assert proof is None
