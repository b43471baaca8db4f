"""Signals for code that wants to know, without being part of the pipeline. The sender is the app.

``request_authenticated``: a credential was accepted; argument ``exchange``.
``request_rejected``: a request was refused by a guard; arguments ``exchange`` and ``error`` (a ``SecureMLError``).
"""

from __future__ import annotations

from blinker import NamedSignal, Namespace

_signals = Namespace()

request_authenticated: NamedSignal = _signals.signal("request_authenticated")
request_rejected: NamedSignal = _signals.signal("request_rejected")
