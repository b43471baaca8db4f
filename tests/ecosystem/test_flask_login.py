"""The session of the real Flask-Login as a credential: its user_loader decides, for each request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_login.utils import encode_cookie
from werkzeug.test import Client, TestResponse

from flask_secure_ml import current_principal, public
from flask_secure_ml.testing import MemorySink
from support import HTTPS, RANDOM_SECRET, MakeApp, caller

OWN = {"Origin": HTTPS}
EVIL = {"Origin": "https://evil.test"}


class User(UserMixin):  # type: ignore[misc,unused-ignore]
    """A user whose state an administrator changes."""

    def __init__(self, id: str) -> None:  # noqa: A002
        self.id = id
        self.enabled: Any = True

    @property
    def is_active(self) -> Any:
        return self.enabled


@dataclass
class Database:
    """The users, and how often one was loaded."""

    users: dict[str, User] = field(default_factory=lambda: {"ada": User("ada"), "eve": User("eve")})
    loaded: int = 0
    is_down: bool = False

    def load(self, user_id: str) -> User | None:
        self.loaded += 1
        if self.is_down:
            raise ConnectionError("postgres://admin:secret@db")
        return self.users.get(user_id)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture(params=["before", "after"])
def app(request: pytest.FixtureRequest, protected: MakeApp, database: Database) -> Flask:
    """Make an app that sets Flask-Login up before it is protected, or after."""
    return with_login(protected, database, before=request.param == "before")


def with_login(protected: MakeApp, database: Database, *, before: bool = True, **config: Any) -> Flask:
    app = Flask("with_login")
    app.config |= {"SECRET_KEY": RANDOM_SECRET} | config
    manager = LoginManager()
    manager.user_loader(database.load)
    if before:
        manager.init_app(app)

    @app.post("/login/<name>")
    @public
    def login(name: str) -> str:
        return str(login_user(database.users[name], remember="remember" in request.args))

    @app.post("/logout")
    def logout() -> str:
        return str(logout_user())

    app.add_url_rule("/mine", "mine", lambda: f"{current_principal.id} {current_user.id}", methods=["GET", "POST"])
    protected(app, SESSION_LOGIN={"user": "_user_id", "scopes": ["predict"]})
    if not before:
        manager.init_app(app)
    return app


def log_in(app: Flask, name: str = "ada", query: str = "") -> Client:
    client = app.test_client()
    assert client.post(f"/login/{name}{query}", base_url=HTTPS).text == "True"
    return client


def mine(client: Client, headers: Any = None, **more: Any) -> TestResponse:
    return client.get("/mine", base_url=HTTPS, headers=headers, **more)


def test_a_user(app: Flask, database: Database) -> None:
    """It is the principal and the current user, and is loaded once for each request."""
    client = log_in(app)
    database.loaded = 0
    assert mine(client).text == "session:ada ada"
    assert client.post("/mine", base_url=HTTPS, headers=OWN).text == "session:ada ada"
    assert database.loaded == 2
    assert client.post("/mine", base_url=HTTPS, headers=EVIL).status_code == 403
    assert client.post("/logout", base_url=HTTPS, headers=OWN).status_code == 200
    assert mine(client).status_code == 401


def deleted(database: Database) -> None:
    del database.users["ada"]


def deactivated(database: Database) -> None:
    database.users["ada"].enabled = False


def deactivated_by_a_method(database: Database) -> None:
    database.users["ada"].enabled = lambda: False


def replaced(database: Database) -> None:
    database.users["ada"] = database.users["eve"]


CHANGES = [deleted, deactivated, deactivated_by_a_method, replaced]


@pytest.mark.parametrize("query", ["", "?remember"], ids=["session", "remembered"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_user_who_is_gone(
    app: Flask, database: Database, sink: MemorySink, change: Callable[[Database], None], query: str
) -> None:
    """It is out with the next request, and the log has the reason; a constant body has none."""
    client = log_in(app, query=query)
    assert mine(client).status_code == 200
    change(database)
    response = mine(client)
    assert (response.status_code, response.headers["X-Error-Code"]) == (401, "not_authenticated")
    assert any(word in sink.records[-1]["reason"] for word in ("no user", "not active", "differs from the user"))
    assert response.json == mine(app.test_client()).json | {"request_id": response.headers["X-Request-ID"]}  # type: ignore[operator]


def test_a_database_that_is_down(app: Flask, database: Database) -> None:
    """It is a 503 and not a logged-out user, and its error is not revealed."""
    client = log_in(app)
    database.is_down = True
    response = mine(client)
    assert (response.status_code, response.headers["X-Error-Code"]) == (503, "dependency_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert "secret" not in response.text
    database.is_down = False
    assert mine(client).status_code == 200


def test_two_requests_in_one_context(app: Flask, database: Database) -> None:
    """A user loaded by one request is not visible to the other."""
    with app.app_context():
        client = log_in(app)
        assert mine(client).status_code == 200
        deleted(database)
        assert mine(client).status_code == 401


# --- the remember-me cookie -------------------------------------------------------------------------------------------


def test_a_user_who_is_remembered(app: Flask) -> None:
    """The first request after the session ended has the user, under the rules of origins."""
    client = log_in(app, query="?remember")
    cookie = client.get_cookie("remember_token")
    assert cookie is not None
    assert (cookie.secure, cookie.http_only, cookie.same_site) == (True, True, "Lax")

    def again(method: str, headers: dict[str, str]) -> TestResponse:
        other = app.test_client(use_cookies=False)
        sent = headers | {"Cookie": f"remember_token={cookie.value}"}
        return other.open("/mine", method=method, base_url=HTTPS, headers=sent)

    assert again("GET", {}).text == "session:ada ada"
    assert again("POST", OWN).text == "session:ada ada"
    assert again("POST", EVIL).status_code == 403
    assert again("POST", {}).status_code == 403
    assert again("GET", caller("bad")).status_code == 401


FORGED = [
    *("", "ada", "ada|", "|", "ada|00", "ada|ada|0", "|" * 500),
    *("ada|" + "0" * 128, "ada|\u00e4", "\u00e4|" + "0" * 128),
]


@pytest.mark.parametrize("value", FORGED)
def test_forged_remember_cookies(app: Flask, database: Database, value: str) -> None:
    """They get 401, and no user is loaded."""
    client = app.test_client(use_cookies=False)
    environ = {"HTTP_COOKIE": f"remember_token={value}".encode().decode("latin-1")}
    response = client.get("/mine", base_url=HTTPS, environ_overrides=environ)
    assert (response.status_code, database.loaded) == (401, 0)


def test_a_remember_cookie_of_another_app(app: Flask, database: Database) -> None:
    """It is signed with another key."""
    other = Flask("other")
    other.secret_key = "another secret of this test"
    with other.app_context():
        cookie = encode_cookie("ada")
    client = app.test_client(use_cookies=False)
    headers = {"Cookie": f"remember_token={cookie}"}
    assert client.get("/mine", base_url=HTTPS, headers=headers).status_code == 401
    assert database.loaded == 0


# --- session protection -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "status"), [("strong", 401), ("basic", 200), (None, 200)])
def test_session_protection(protected: MakeApp, database: Database, mode: str | None, status: int) -> None:
    """Under ``strong``, the session of another browser or address ends, with its remember-me cookie."""
    app = with_login(protected, database, SESSION_PROTECTION=mode)
    client = log_in(app, query="?remember")
    stolen = {"User-Agent": "another browser"}
    assert mine(client, stolen).status_code == status
    assert mine(client, stolen).status_code == status
    assert (client.get_cookie("remember_token") is None) == (mode == "strong")


def test_an_address_that_the_client_claims(protected: MakeApp, database: Database) -> None:
    """Flask-Login reads X-Forwarded-For itself, and gets none that no trusted proxy sent."""
    app = with_login(protected, database, SESSION_PROTECTION="strong")
    client = log_in(app)
    assert mine(client, {"X-Forwarded-For": "203.0.113.9"}).status_code == 200
    stolen = {"REMOTE_ADDR": "198.51.100.7"}
    assert mine(client, {"X-Forwarded-For": "127.0.0.1"}, environ_overrides=stolen).status_code == 401


# --- apps without it --------------------------------------------------------------------------------------------------


def test_an_app_without_flask_login(protected: MakeApp) -> None:
    """Only the session counts; a cookie with the name of the remember-me cookie is ignored."""
    app = Flask("without_login")
    app.secret_key = RANDOM_SECRET
    app.add_url_rule("/mine", "mine", lambda: current_principal.id)
    protected(app, SESSION_LOGIN={"user": "_user_id"})
    client = app.test_client()
    client.set_cookie("remember_token", "ada|0", domain="localhost")
    assert mine(client).status_code == 401
    with client.session_transaction(base_url=HTTPS) as session:
        session["_user_id"] = "ada"
    assert mine(client).text == "session:ada"


def test_another_key_of_the_session(protected: MakeApp, database: Database) -> None:
    """Where the user is not that of Flask-Login, its user_loader is not called."""
    app = Flask("with_both")
    app.secret_key = RANDOM_SECRET
    LoginManager(app).user_loader(database.load)
    app.add_url_rule("/mine", "mine", lambda: current_principal.id)
    protected(app, SESSION_LOGIN={"user": "user_id"})
    client = app.test_client()
    with client.session_transaction(base_url=HTTPS) as session:
        session["user_id"] = "nobody"
    assert (mine(client).text, database.loaded) == ("session:nobody", 0)
