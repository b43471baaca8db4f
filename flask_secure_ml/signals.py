"""Signals for code outside the pipeline. The sender is the app.

``request_authenticated``
    A credential was accepted. Argument: ``exchange``.

``request_rejected``
    A guard rejected a request. Arguments: ``exchange`` and ``error``, a :class:`~flask_secure_ml.SecureMLError`.

``limit_store_changed``
    The store of the limits is down, or up again. Argument: ``up``.
"""

from __future__ import annotations

from blinker import NamedSignal, Namespace

_signals = Namespace()

request_authenticated: NamedSignal = _signals.signal("request_authenticated")
request_rejected: NamedSignal = _signals.signal("request_rejected")
limit_store_changed: NamedSignal = _signals.signal("limit_store_changed")
