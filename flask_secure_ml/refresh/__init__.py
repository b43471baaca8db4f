"""Values from elsewhere that are cached, and sources that may be down: the primitives behind every such case.

* :class:`Refreshed`: a cached value that one caller refreshes while the others use the last good one.
* :class:`WatchedFile`: the parsed content of a file, parsed again when the file changes.
* :class:`Breaker`: a circuit breaker for a source that is called for each request.
* :class:`SingleFlight`: one call for each key, whose result all callers share.
* :class:`Outage`: one line in the log when something goes down and one when it is back.
* :class:`PerProcess`: an object, such as a lock, that a forked process creates again.

None of them starts a thread or holds a lock during I/O. What they create before a fork, or before gevent patches the
standard library, is never used after it.
"""

from .breaker import JITTER, Breaker, Monotonic, Outage
from .files import WatchedFile
from .process import PerProcess, SingleFlight, process_lock
from .value import Attempt, Refreshed

__all__ = [
    "JITTER",
    "Attempt",
    "Breaker",
    "Monotonic",
    "Outage",
    "PerProcess",
    "Refreshed",
    "SingleFlight",
    "WatchedFile",
    "process_lock",
]
