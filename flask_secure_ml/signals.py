"""Signals for code that wants to know, without being part of the pipeline. The sender is the app.

``authenticated``: a credential was accepted; argument ``exchange``.
``refused``: a request was refused by a guard; arguments ``exchange`` and ``error`` (a ``SecureMLError``).
"""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

authenticated = _signals.signal("authenticated")
refused = _signals.signal("refused")
