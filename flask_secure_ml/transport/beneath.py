"""Inspects the WSGI stack of an app: the layers beneath the proxy middleware, and those around it.

Flask extensions such as Flask-SocketIO, and middleware such as Werkzeug's ``DispatcherMiddleware``, respond to requests
that never reach Flask. If anything other than a plain Flask app is beneath, the guards must run before it is called.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from .proxy import ProxyMiddleware

_DISPATCH = (
    "wsgi_app",
    "full_dispatch_request",
    "preprocess_request",
    "dispatch_request",
    "finalize_request",
    "process_response",
)
# A stack has a few layers; the limit is for objects that refer to half of a program.
_MOST_OBJECTS = 500


@dataclass(frozen=True)
class Beneath:
    """The layers beneath the proxy middleware.

    :param layers: the names of middleware and of overridden methods of the app, outermost first.
    :param mounts: the paths at which a layer responds without Flask, including all paths below them.
    :param opaque: the layers whose own paths are unknown.
    """

    layers: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Return True if only Flask responds, with its own dispatch."""
        return not self.layers


def beneath(app: Flask, wsgi_app: Callable[..., Any]) -> Beneath:
    """Return the layers between the proxy middleware and Flask's own dispatch.

    :param wsgi_app: the ``app.wsgi_app`` that the proxy middleware wraps.
    """
    stack = [] if _is_flasks_own(wsgi_app, app) else _path(wsgi_app, lambda found: _is_flasks_own(found, app))
    overridden = tuple(f"{layer_name(app)}.{name}" for name in _DISPATCH if _overrides(app, name))
    mounts = {layer_name(layer): tuple(_mounts_of(layer)) for layer in stack}
    opaque = tuple(layer_name(layer) for layer in stack if not is_proxy_fix(layer))
    return Beneath(
        (*(layer_name(layer) for layer in stack), *overridden),
        tuple(dict.fromkeys(path for paths in mounts.values() for path in paths)),
        # A layer that mounts Flask, or hides it, may respond at any other path.
        tuple(name for name in opaque if not mounts[name] or not _is_held(stack, app)),
    )


def around(app: Flask) -> tuple[object, ...]:
    """Return the middleware around the proxy middleware, outermost first.

    It includes the app if its class overrides ``__call__``. A layer with another name, such as ``application =
    DispatcherMiddleware(app, ...)``, cannot be found.
    """
    own_call = (app,) if _defines(app, "__call__") else ()
    outermost = app.wsgi_app
    if _protects(outermost, app):
        return own_call
    return (*own_call, *_path(outermost, lambda found: _protects(found, app)))


def layer_name(layer: object) -> str:
    """Return the import name of a function, or of the class of any other object."""
    named: Any = layer if isinstance(layer, FunctionType) else type(layer)
    return f"{named.__module__}.{named.__qualname__}"


def is_proxy_fix(layer: object) -> bool:
    """Return True for Werkzeug's ``ProxyFix``, which around the app trusts the headers of any client."""
    return isinstance(layer, ProxyFix)


def _is_flasks_own(found: object, app: Flask) -> bool:
    return isinstance(found, MethodType) and found.__self__ is app and found.__func__ is type(app).wsgi_app


def _protects(found: object, app: Flask) -> bool:
    return isinstance(found, ProxyMiddleware) and found.app is app


def _overrides(app: Flask, name: str) -> bool:
    # Every app that is wrapped in middleware has its own attribute wsgi_app.
    own = name in vars(app) and name != "wsgi_app"
    return own or _defines(app, name)


def _defines(app: Flask, name: str) -> bool:
    # Not by identity: tools that instrument Flask use descriptors that return a new object each time.
    classes = type(app).__mro__
    return any(name in vars(cls) for cls in classes[: classes.index(Flask)])


def _path(start: object, is_target: Callable[[object], bool]) -> list[object]:
    """Return the objects on the path to the target, without it; only the first if the target is not found."""
    start = _holder(start)
    before: dict[int, tuple[object, object]] = {id(start): (start, None)}
    queue = deque([start])
    while queue and len(before) < _MOST_OBJECTS:
        current = queue.popleft()
        for found in _held_by(current):
            if is_target(found):
                return _traced(before, current)
            inner = _holder(found)
            if id(inner) not in before and not isinstance(inner, Flask):
                before[id(inner)] = (inner, current)
                queue.append(inner)
    return [start]


def _traced(before: dict[int, tuple[object, object]], last: object) -> list[object]:
    steps: list[object] = []
    current: object = last
    while current is not None:
        steps.append(current)
        current = before[id(current)][1]
    return steps[::-1]


def _is_held(stack: list[object], app: Flask) -> bool:
    return any(_is_flasks_own(found, app) for found in _held_by(stack[-1]))


def _holder(found: object) -> object:
    """Return the object of a bound method, which refers to the next layer; return any other object unchanged."""
    return found.__self__ if isinstance(found, MethodType) and not isinstance(found.__self__, Flask) else found


def _held_by(layer: object) -> Iterator[object]:
    held: list[Any] = list(_read(layer, "__dict__", {}).values())
    held += [_read(layer, name) for name in _slots(layer)]
    if isinstance(layer, FunctionType):
        held += [cell.cell_contents for cell in layer.__closure__ or () if _is_filled(cell)]
        held += [*(layer.__defaults__ or ()), *(layer.__kwdefaults__ or {}).values()]
    if isinstance(layer, partial):
        held += [layer.func, *layer.args, *layer.keywords.values()]
    yield from (each for each in held if callable(each) and not isinstance(each, type))


def _read(layer: object, name: str, missing: Any = None) -> Any:
    # Without the object's own __getattr__, because a proxy such as current_app raises outside its context.
    try:
        return object.__getattribute__(layer, name)
    except Exception:  # noqa: BLE001 - a descriptor may raise anything
        return missing


def _slots(layer: object) -> Iterator[str]:
    for cls in type(layer).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            yield f"_{cls.__name__.lstrip('_')}{name}" if private else name


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _mounts_of(layer: Any) -> Iterator[str]:
    """Yield the paths at which known middleware responds itself.

    Known are Werkzeug's ``DispatcherMiddleware`` and ``SharedDataMiddleware``, and the ``WSGIApp`` of Engine.IO and
    Socket.IO. They are recognized by their attributes, so that none of them needs to be imported.
    """
    mounts = getattr(layer, "mounts", None)
    if isinstance(mounts, dict):
        yield from (str(path) for path in mounts)
    exports = getattr(layer, "exports", None)
    if isinstance(exports, list):
        yield from (str(entry[0]).rstrip("/") for entry in exports if isinstance(entry, tuple) and entry)
    engineio_path = getattr(layer, "engineio_path", None)
    if isinstance(engineio_path, str):
        yield "/" + engineio_path.strip("/")
        static_files = getattr(layer, "static_files", None)
        yield from (str(path).rstrip("/") for path in (static_files if isinstance(static_files, dict) else ()))
