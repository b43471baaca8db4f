"""Metrics of gunicorn workers: their files, and their port, which the parent binds."""

from __future__ import annotations

import os
import re
import socket
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config.metrics import ListenAddress

_LISTEN = "FLASK_SECURE_ML_METRICS_LISTEN"
_SOCKET = "FSML_METRICS_SOCKET"
_FILES = "secure_ml_files"
_INSTALL = "pip install 'flask-secure-ml[metrics]'"


_OWNER = re.compile(r"_(?P<server>[0-9]{1,9})(?P<worker>w[0-9]+)?\.db\Z")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # A process of another user.
        return True
    return True


class MetricsFiles:
    """Names the metrics files after a slot among the running workers instead of the process id.

    With process ids, the files of all past processes would accumulate, and a scrape reads all files.
    """

    def __init__(self) -> None:
        # Empty before a worker is forked.
        self._name = ""

    def use(self) -> None:
        """Make prometheus_client use these names."""
        from prometheus_client import values

        setattr(values, "ValueClass", values.MultiProcessValue(lambda: self._name or str(os.getpid())))  # noqa: B010

    def remove_stale(self, directory: str) -> None:
        """Remove the gauges of servers that were killed; called before the first worker starts.

        Otherwise, their workers would still be counted, and a store that was down then would be reported as down.
        """
        for file in Path(directory).glob("gauge_live*.db"):
            found = _OWNER.search(file.name)
            if found is None:
                continue
            owner = int(found["server"])
            # A preloaded app has files of this process, which is not a worker.
            if found["worker"] if owner == os.getpid() else not _is_running(owner):
                file.unlink(missing_ok=True)

    def choose(self, server: Any, worker: Any) -> None:
        """Choose files for a worker before it is forked that no running worker uses."""
        taken = {getattr(each, _FILES, "") for each in server.WORKERS.values()}
        names = (f"{os.getpid()}w{number}" for number in count(1))
        setattr(worker, _FILES, next(each for each in names if each not in taken))

    def adopt(self, worker: Any) -> None:
        """Continue the files of a worker that ended, or create them; called in the worker process."""
        self._name = getattr(worker, _FILES, "")

    def release(self, worker: Any) -> None:
        """Remove the gauges of a worker that ended."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(getattr(worker, _FILES, worker.pid))


class MetricsPort:
    """The listener of one server; the parent keeps it, and workers inherit it."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None

    def bind(self, server: Any) -> None:
        """Bind the port from a preloaded app, or else from the environment.

        :raises RuntimeError: the port is in use, the address is invalid or a package is missing; gunicorn prints the
            message and exits.
        """
        address = _address(server)
        if address is None:
            return
        if find_spec("prometheus_client") is None:
            raise RuntimeError(f"{_LISTEN} requires the package prometheus_client: {_INSTALL}")
        from ..errors import ConfigError
        from ..observe.metrics import bind, inherited

        try:
            self._listener = inherited(address)
            if self._listener is None:
                self._listener = bind(address)
            else:
                # The socket of the previous server, which must not be passed on by accident.
                os.set_inheritable(int(os.environ[_SOCKET]), False)
        except ConfigError as error:
            raise RuntimeError(*error.problems) from None
        os.environ[_SOCKET] = str(self._listener.fileno())

    def pass_on(self, server: Any) -> None:
        """Let the new server (``USR2``) inherit the socket."""
        if self._listener is not None:
            self._listener.set_inheritable(True)
            # The environment of the next server.
            server.cfg.env_orig[_SOCKET] = str(self._listener.fileno())


def agree(worker: Any) -> None:
    """Check that the app of a worker and its server use the same port, and watch the server's certificate.

    :raises ConfigError: a port was bound but the app does not serve it, so clients would wait forever.
    """
    from flask import Flask

    from ..errors import ConfigError
    from ..state import EXTENSION, state_of

    # A worker that binds the port itself could not be replaced, because the next one starts before it ends.
    os.environ.setdefault(_SOCKET, "")
    app = worker.wsgi
    # An app inside other middleware is unknown until its first request.
    if not isinstance(app, Flask) or EXTENSION not in app.extensions:
        return
    state = state_of(app)
    if os.environ[_SOCKET] and state.settings.metrics_listen is None:
        raise ConfigError([f"{_LISTEN} is set, but this app has no SECURE_ML_METRICS_LISTEN"])
    if state.metrics is not None and worker.cfg.certfile:
        state.metrics.certificates.watch("server", worker.cfg.certfile)


def _address(server: Any) -> ListenAddress | None:
    from flask import Flask

    from ..config.metrics import listen_address
    from ..state import EXTENSION

    # With --preload, gunicorn has already loaded the app.
    app = server.app.wsgi() if server.cfg.preload_app else None
    if isinstance(app, Flask) and EXTENSION in app.extensions:
        found: ListenAddress | None = app.extensions[EXTENSION].settings.metrics_listen
        return found
    given = os.environ.get(_LISTEN, "")
    try:
        return listen_address(given) if given else None
    except ValueError:
        raise RuntimeError(f"{_LISTEN}: must be an IP address and a port such as '127.0.0.1:9100'") from None
