"""Metrics in the Prometheus format (extra ``metrics``).

Labels have few values: endpoints instead of paths, standard methods, error codes, and names of limits, signals, issuers
and sinks. So clients cannot create series, and no label contains a key, a principal or an IP address.

* :class:`Metrics` counts events. With several workers, ``PROMETHEUS_MULTIPROC_DIR`` names a directory where each
  worker stores its values, and any of them responds with the total;
  :mod:`flask_secure_ml.deploy.gunicorn` creates and cleans it.
* :class:`Facts` are computed for each scrape by the worker that responds, and are the same for all workers.
* :func:`add_metrics` serves both on a route, and :class:`MetricsListener` on a separate port.
"""

from .counters import Metrics
from .exposition import Exposition, add_metrics
from .facts import Certificates, Facts, key_facts, readiness_facts, score_facts
from .listener import SOCKET, MetricsListener, bind, inherited

__all__ = [
    "SOCKET",
    "Certificates",
    "Exposition",
    "Facts",
    "Metrics",
    "MetricsListener",
    "add_metrics",
    "bind",
    "inherited",
    "key_facts",
    "readiness_facts",
    "score_facts",
]
