"""Scopes: all of them, and a challenge that says which would do."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_secure_ml import protect
from support import HTTPS, MakeApp, caller


@pytest.fixture
def scoped(app: Flask) -> Flask:
    app.add_url_rule("/x", view_func=protect(scopes=["predict", "explain"])(lambda: "ok"))
    return app


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        pytest.param((), 403, id="none"),
        pytest.param(("predict",), 403, id="one of two"),
        pytest.param(("predict", "explain"), 200, id="both"),
        pytest.param(("predict", "explain", "admin"), 200, id="more"),
        pytest.param(("Predict", "explain"), 403, id="other case"),
        pytest.param(("predictexplain", "predict_explain"), 403, id="look-alikes"),
    ],
)
def test_all_scopes_are_needed(scoped: Flask, scopes: tuple[str, ...], status: int) -> None:
    """A scope matches exactly or not at all."""
    assert scoped.test_client().get("/x", base_url=HTTPS, headers=caller("ada", *scopes)).status_code == status


def test_the_challenge_names_the_scopes(scoped: Flask) -> None:
    """RFC 6750 section 3.1: 403 with error and scope, in the scheme that was used."""
    response = scoped.test_client().get("/x", base_url=HTTPS, headers=caller("ada", "predict"))
    challenge = 'Test realm="model", error="insufficient_scope", scope="explain predict"'
    assert response.headers["WWW-Authenticate"] == challenge
    assert response.json["code"] == "insufficient_scope"  # type: ignore[index]


def test_the_realm(protected: MakeApp) -> None:
    """SECURE_ML_REALM is named in the challenge."""
    response = protected(REALM="digits").test_client().get("/x", base_url=HTTPS)
    assert response.headers["WWW-Authenticate"] == 'Test realm="digits"'
