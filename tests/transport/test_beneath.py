"""Detecting layers below the proxy middleware and around the app."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask import Flask, current_app, request, session
from flask_socketio import SocketIO
from socketio import Server, WSGIApp
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.middleware.shared_data import SharedDataMiddleware

from flask_secure_ml import SecureML
from flask_secure_ml.policy.paths import canonical, in_mount
from flask_secure_ml.transport.beneath import around, beneath, layer_name
from support import HTTPS, NameAuthenticator, caller

Wrap = Callable[[Any], Any]


def mounted(environ: Any, start_response: Any) -> list[bytes]:
    raise AssertionError


def by_closure(inner: Any) -> Any:
    def layer(environ: Any, start_response: Any) -> Any:
        return inner(environ, start_response)

    return layer


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.inner(environ, start_response)

    def serve(self, environ: Any, start_response: Any) -> Any:
        return self.inner(environ, start_response)


class Private:
    __slots__ = ("__inner", "proxies")

    def __init__(self, inner: Any) -> None:
        self.proxies = (current_app, request)
        self.__inner = inner

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.__inner(environ, start_response)


def holding_proxies(inner: Any, app: Any = current_app) -> Any:
    proxied = request

    def layer(environ: Any, start_response: Any, *, session: Any = session) -> Any:
        return inner(environ, start_response) if proxied is not None else app

    return layer


@pytest.mark.parametrize(
    ("wrap", "layers", "mounts", "opaque"),
    [
        pytest.param(lambda inner: inner, 0, (), 0, id="nothing"),
        pytest.param(
            lambda inner: DispatcherMiddleware(inner, {"/metrics": mounted, "/": mounted}),
            1,
            ("/metrics", "/"),
            0,
            id="dispatcher",
        ),
        pytest.param(DispatcherMiddleware, 1, (), 1, id="dispatcher without mounts"),
        pytest.param(
            lambda inner: SharedDataMiddleware(inner, {"/files/": "/tmp"}), 1, ("/files",), 0, id="shared data"
        ),
        pytest.param(ProxyFix, 1, (), 0, id="ProxyFix"),
        pytest.param(by_closure, 1, (), 1, id="function"),
        pytest.param(Slotted, 1, (), 1, id="slots"),
        pytest.param(Private, 1, (), 1, id="private slots"),
        pytest.param(lambda inner: holding_proxies(Slotted(inner)), 2, (), 2, id="proxies without a context"),
        pytest.param(
            lambda inner: DispatcherMiddleware(mounted, {"/api": inner}), 1, ("/api",), 1, id="Flask as a mount"
        ),
        pytest.param(lambda inner: Slotted(inner).serve, 1, (), 1, id="bound method"),
        pytest.param(lambda inner: partial(by_closure(inner)), 2, (), 2, id="partial"),
        pytest.param(
            lambda inner: by_closure(Slotted(DispatcherMiddleware(inner, {"/m": mounted}))), 3, ("/m",), 2, id="three"
        ),
        pytest.param(
            lambda inner: WSGIApp(Server(async_mode="threading"), inner, socketio_path="ws/live"),
            1,
            ("/ws/live",),
            0,
            id="Socket.IO",
        ),
        pytest.param(
            lambda inner: WSGIApp(Server(async_mode="threading"), inner, static_files={"/app/": "/tmp"}),
            1,
            ("/socket.io", "/app"),
            0,
            id="Socket.IO with files",
        ),
    ],
)
def test_layers_beneath(bare_app: Flask, wrap: Wrap, layers: int, mounts: tuple[str, ...], opaque: int) -> None:
    """Each layer down to Flask is found, however it is referenced, with the paths at which it responds itself."""
    found = beneath(bare_app, wrap(bare_app.wsgi_app))
    assert (len(found.layers), found.mounts, len(found.opaque), found.plain) == (layers, mounts, opaque, layers == 0)


def test_flask_socketio(bare_app: Flask) -> None:
    """The extension itself, with its default path and with another."""
    SocketIO(bare_app, async_mode="threading", path="/live/")
    assert beneath(bare_app, bare_app.wsgi_app).mounts == ("/live",)


@pytest.mark.parametrize(
    "name",
    [
        "wsgi_app",
        "full_dispatch_request",
        "preprocess_request",
        "dispatch_request",
        "finalize_request",
        "process_response",
    ],
)
def test_a_class_with_its_own_dispatch(name: str) -> None:
    """Every method between the server and the hooks counts, in the class, in a base of it, and on the object."""
    own = type("Own", (Flask,), {name: by_closure(getattr(Flask, name))})
    for cls in (own, type("Inherited", (own,), {})):
        app = cls("model_app")
        assert not beneath(app, app.wsgi_app).plain
    patched = Flask("model_app")
    setattr(patched, name, by_closure(getattr(patched, name)))
    assert not beneath(patched, patched.wsgi_app).plain


def test_a_plain_subclass() -> None:
    """A class that does not override the dispatch is plain."""
    app = type("Named", (Flask,), {"make_response": by_closure(Flask.make_response)})("model_app")
    assert beneath(app, app.wsgi_app).plain


class Instrumented:
    """A descriptor that wraps a method of Flask itself, again for each access, as instrumenting libraries do."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def __get__(self, app: object, cls: type) -> Any:
        return partial(self.method, *([] if app is None else [app]))


@pytest.mark.parametrize("name", ["__call__", "full_dispatch_request", "dispatch_request", "process_response"])
def test_flask_that_is_instrumented(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A tool that wraps the methods of Flask itself is not an override: the app is plain, without outer layers."""
    monkeypatch.setattr(Flask, name, Instrumented(getattr(Flask, name)))
    for cls in (Flask, type("Named", (Flask,), {})):
        app = cls("model_app")
        assert beneath(app, app.wsgi_app).plain
        SecureML(app, authenticators=[NameAuthenticator()])
        assert around(app) == ()
        assert app.test_client().get("/x", base_url=HTTPS).status_code == 401
        assert app.test_client().get("/x", base_url=HTTPS, headers=caller()).status_code == 404


def test_layers_around(app: Flask) -> None:
    """Layers around the proxy middleware are found, outermost first."""
    assert around(app) == ()
    inner = Slotted(app.wsgi_app)
    app.wsgi_app = by_closure(inner)  # type: ignore[method-assign]
    assert [layer_name(layer) for layer in around(app)] == [
        f"{__name__}.by_closure.<locals>.layer",
        f"{__name__}.Slotted",
    ]


def test_a_layer_that_hides_what_it_holds(app: Flask) -> None:
    """The outermost layer is named even if the proxy middleware is not found inside it."""
    hidden = {"app": app.wsgi_app}

    def hiding(environ: Any, start_response: Any) -> Any:
        return hidden["app"](environ, start_response)

    app.wsgi_app = hiding  # type: ignore[method-assign]
    (layer,) = around(app)
    assert layer is app.wsgi_app


def test_a_class_with_its_own_call() -> None:
    """``__call__`` of the app's class runs before ``wsgi_app``, so it is outside of the proxy middleware."""
    app = type("Calling", (Flask,), {"__call__": by_closure(Flask.__call__)})("model_app")
    SecureML(app)
    assert around(app) == (app,)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("//a///b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a"),
        ("/", "/"),
        ("/.hidden/..x", "/.hidden/..x"),
    ],
)
def test_canonical_paths(path: str, meant: str) -> None:
    """Empty and dot segments are removed, and names that only look like them stay."""
    assert canonical(path) == meant


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/m", True),
        ("/m/", True),
        ("/m/x", True),
        ("//m/x", True),
        ("/x/../m", True),
        ("/mx", False),
        ("/M", False),
        ("/x/m", False),
        ("/caf\xc3\xa9/x", True),
        ("//caf\xc3\xa9/x", True),
        ("/caf\xe9", True),
    ],
)
def test_paths_in_mounts(path: str, inside: bool) -> None:
    """A mount has its own path and all below it, in any spelling that a layer may undo."""
    assert in_mount(path, ("/m", "/café")) is inside
    assert in_mount(path, ("",))
