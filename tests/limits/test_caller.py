"""``flask_secure_ml.limits.caller``: a key function for a Limiter of the app's own."""

from __future__ import annotations

from flask import Flask
from flask_limiter import Limiter

from flask_secure_ml import public
from flask_secure_ml.limits import caller as who_is_charged
from support import HTTPS, MakeApp, caller


def limited(protected: MakeApp) -> Flask:
    app = Flask("with_limiter")
    app.config["RATELIMIT_DEFAULT"] = "2/hour"
    Limiter(who_is_charged, app=app, storage_uri="memory://")
    app.add_url_rule("/x", "x", lambda: "ok")
    app.add_url_rule("/open", "open", public(lambda: "ok"))
    return protected(app)


def test_by_principal(protected: MakeApp) -> None:
    """Each caller has its own count, from any address."""
    client = limited(protected).test_client()
    found = [
        client.get("/x", base_url=HTTPS, headers=caller(name)).status_code for name in ("ada", "ada", "ada", "bob")
    ]
    assert found == [200, 200, 429, 200]


def test_by_network(protected: MakeApp) -> None:
    """An anonymous caller is its network, which is never empty: Flask-Limiter would not limit an empty key."""
    client = limited(protected).test_client()

    def status(address: str) -> int:
        return client.get("/open", base_url=HTTPS, environ_overrides={"REMOTE_ADDR": address}).status_code

    assert [status("192.0.2.1") for _ in range(3)] == [200, 200, 429]
    assert status("192.0.2.2") == 200


def test_settings_of_another_store(protected: MakeApp) -> None:
    """RATELIMIT_* may name an unsupported storage; limits are then counted with the other shared state."""
    app = Flask("with_other_store")
    app.config |= {"RATELIMIT_STORAGE_URI": "memory://", "RATELIMIT_STRATEGY": "moving-window"}
    Limiter(who_is_charged, app=app)
    app.config["RATELIMIT_STORAGE_URI"] = "memcached://127.0.0.1:1"
    client = protected(app).test_client()
    assert client.get("/x", base_url=HTTPS, headers=caller()).status_code == 404
