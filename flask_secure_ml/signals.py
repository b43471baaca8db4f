"""Signals for code outside the pipeline. The sender is the app.

``request_authenticated``
    A credential was accepted. Argument: ``exchange``.

``request_rejected``
    A guard rejected a request. Arguments: ``exchange`` and ``error``, a :class:`~flask_secure_ml.SecureMLError`.

``audit_unavailable``
    The audit record of a response cannot be written. Arguments: ``exchange`` and ``reason``.

``audit_log_changed``
    Records or checkpoints of the audit log cannot be written, or a sink does not accept checkpoints; or this works
    again. Receivers run in a request or in a thread of the log. Arguments: ``up``, and ``message``, which describes
    the change.

``limit_store_changed``
    The limit store is down, or up again. Argument: ``up``.

``anomaly_detected``
    The traffic of a caller or a network is unusual, or credentials of one identity are tried from many networks. It is
    sent once for each episode, in one of the processes that share a store. Argument: ``anomaly``, an
    :class:`~flask_secure_ml.observe.anomalies.Anomaly`.
"""

from __future__ import annotations

from blinker import NamedSignal, Namespace

_signals = Namespace()

anomaly_detected: NamedSignal = _signals.signal("anomaly_detected")
audit_log_changed: NamedSignal = _signals.signal("audit_log_changed")
audit_unavailable: NamedSignal = _signals.signal("audit_unavailable")
request_authenticated: NamedSignal = _signals.signal("request_authenticated")
request_rejected: NamedSignal = _signals.signal("request_rejected")
limit_store_changed: NamedSignal = _signals.signal("limit_store_changed")
