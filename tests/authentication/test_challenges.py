"""``WWW-Authenticate``, character by character (RFC 6750 section 3, RFC 9449 section 7.1)."""

from __future__ import annotations

import re

import pytest

from flask_secure_ml.authentication.challenges import Challenges
from flask_secure_ml.config import Settings
from flask_secure_ml.errors import ConfigError
from support import MakeApp, NameAuthenticator

BOTH = Challenges("model", ["Bearer", "DPoP", "ApiKey", "Bearer", ""], {"DPoP": ['algs="ES256"']})
BEARER, DPOP, KEY = 'Bearer realm="model"', 'DPoP realm="model", algs="ES256"', 'ApiKey realm="model"'
ONE_CHALLENGE = re.compile(
    r'[A-Za-z]+( [a-z_]+="[\x20\x21\x23-\x5b\x5d-\x7e]*"(, [a-z_]+="[\x20\x21\x23-\x5b\x5d-\x7e]*")*)'
)


def lines(challenges: Challenges, used: str = "", error: str = "") -> list[str]:
    return [value for _, value in challenges.headers(used, error)]


def test_no_credential_names_every_scheme_and_no_error() -> None:
    """BT-3, DP-15: without a credential the challenge has no error; each scheme is offered once."""
    assert lines(BOTH) == [BEARER, DPOP, KEY]


@pytest.mark.parametrize(
    ("used", "error", "expected"),
    [
        pytest.param("Bearer", "invalid_token", [f'{BEARER}, error="invalid_token"', DPOP, KEY], id="BT-4"),
        pytest.param("DPoP", "invalid_token", [f'{DPOP}, error="invalid_token"', BEARER, KEY], id="DP-15"),
        pytest.param("DPoP", "use_dpop_nonce", [f'{DPOP}, error="use_dpop_nonce"', BEARER, KEY], id="DP-14"),
        pytest.param("ApiKey", "invalid_token", [KEY, BEARER, DPOP], id="ApiKey has no codes"),
        pytest.param("Other", "invalid_token", [BEARER, DPOP, KEY], id="a scheme that is not on offer"),
    ],
)
def test_error_goes_to_the_used_scheme(used: str, error: str, expected: list[str]) -> None:
    """The error code is in the challenge of the used scheme, which comes first."""
    assert lines(BOTH, used, error) == expected


@pytest.mark.parametrize(
    ("schemes", "expected"),
    [
        pytest.param(["ApiKey", "Bearer"], f'{BEARER}, error="invalid_request"', id="BT-5 Bearer"),
        pytest.param(["DPoP"], 'DPoP realm="model", error="invalid_request"', id="BT-12 DPoP"),
        pytest.param(["ApiKey"], KEY, id="no OAuth scheme"),
    ],
)
def test_malformed(schemes: list[str], expected: str) -> None:
    """BT-5: a malformed request has the code invalid_request, on a scheme that defines it."""
    assert Challenges("model", schemes, {}).malformed()[0] == ("WWW-Authenticate", expected)


@pytest.mark.parametrize("schemes", [[], [""]], ids=["nothing", "certificates only"])
def test_there_is_always_a_challenge(schemes: list[str]) -> None:
    """RFC 9110 section 15.5.2: a 401 without a challenge is not one."""
    assert lines(Challenges("model", schemes, {})) == [BEARER]


@pytest.mark.parametrize(
    ("challenge", "expected"),
    [
        pytest.param("Turnstile", 'Turnstile realm="model"', id="a scheme"),
        pytest.param('Basic realm="mine"', 'Basic realm="mine"', id="a realm of its own"),
        pytest.param('Basic realm = "mine"', 'Basic realm = "mine"', id="spaces"),
        pytest.param("Basic REALM=mine", "Basic REALM=mine", id="a realm in upper case, a token"),
        pytest.param('Basic charset="UTF-8"', 'Basic realm="model", charset="UTF-8"', id="another parameter"),
        pytest.param('Basic charset="UTF-8", realm="a, b=c"', 'Basic charset="UTF-8", realm="a, b=c"', id="both"),
        pytest.param(r'Basic title="realm=\"x\""', r'Basic realm="model", title="realm=\"x\""', id="quoted"),
        pytest.param("Negotiate YII=", "Negotiate YII=", id="token68, which has no parameters"),
        pytest.param('DPoP algs="RS256"', 'DPoP realm="model", algs="RS256"', id="its own parameter of the scheme"),
        pytest.param('DPoP realm="mine"', 'DPoP realm="mine", algs="ES256"', id="that of the scheme is added"),
    ],
)
def test_custom_challenge(challenge: str, expected: str) -> None:
    """RFC 9110 section 11.2: each parameter occurs once; those of the authenticator take precedence."""
    made = Challenges("model", [challenge, "ApiKey"], {"DPoP": ['algs="ES256"']})
    assert lines(made, challenge) == [expected, KEY]
    assert lines(made, "ApiKey") == [KEY, expected]


def test_custom_challenge_of_an_oauth_scheme() -> None:
    """It has error codes too."""
    own = 'Bearer realm="mine"'
    assert lines(Challenges("model", [own], {}), own, "invalid_token") == [f'{own}, error="invalid_token"']
    assert Challenges("model", [own], {}).malformed() == [("WWW-Authenticate", f'{own}, error="invalid_request"')]


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="a", Digest realm="b"',
        'Basic realm="a", realm="b"',
        "Basic realm=a b",
        'Basic realm="a',
        'Basic realm="a"\r\nX-Header: 1',
        "Bäsic",
        " Basic",
        'Basic realm="é"',
    ],
)
def test_challenge_that_is_not_one(challenge: str, protected: MakeApp) -> None:
    """It stops the app instead of breaking the header."""
    authenticator = NameAuthenticator()
    authenticator.challenge = challenge
    with pytest.raises(ConfigError, match="challenge"):
        protected(parts={"authenticators": [authenticator]})


@pytest.mark.parametrize("used", ["", "Bearer", "DPoP", "ApiKey"])
def test_syntax(used: str) -> None:
    """BT-2, BT-7, BT-8: a scheme and at least one parameter, each once, with characters that need no escape."""
    for line in lines(BOTH, used, "invalid_token"):
        assert ONE_CHALLENGE.fullmatch(line)
        names = re.findall(r'([a-z_]+)="', line)
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("realm", ['a"b', "a\r\nb", "a\\b", "é", ""])
def test_realm_cannot_break_the_header(realm: str) -> None:
    """BT-8: a realm that would need an escape stops the app."""
    with pytest.raises(ConfigError):
        Settings.load({"SECURE_ML_REALM": realm})
