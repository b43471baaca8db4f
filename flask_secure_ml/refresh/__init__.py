"""Primitives for cached values and for sources that may be down.

* :class:`Refreshed`: a cached value that one caller refreshes while the others use the last valid one.
* :class:`WatchedFile`: the parsed content of a file, parsed again when the file changes.
* :func:`replace_file`: writes such a file atomically.
* :func:`sentence_of`: the message of an error of the system, with the file.
* :class:`Breaker`: a circuit breaker for a source that is called for each request.
* :class:`SingleFlight`: one call for each key, whose result all callers share.
* :class:`Outage`: logs one line when something goes down and one when it is up again.
* :class:`PerProcess`: an object, such as a lock, that a forked process creates again.

None of them starts a thread or holds a lock during I/O. Objects that were created before a fork, or before gevent
patched the standard library, are never used after it.
"""

from .breaker import JITTER, QUIET, Breaker, Changed, Monotonic, Outage, failure_reason
from .files import WatchedFile, sentence_of
from .process import PerProcess, SingleFlight, process_lock
from .replacing import replace_file
from .value import Attempt, Refreshed

__all__ = [
    "JITTER",
    "QUIET",
    "Attempt",
    "Breaker",
    "Changed",
    "Monotonic",
    "Outage",
    "PerProcess",
    "Refreshed",
    "SingleFlight",
    "WatchedFile",
    "failure_reason",
    "process_lock",
    "replace_file",
    "sentence_of",
]
