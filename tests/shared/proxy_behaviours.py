"""The required behaviours of every generated proxy, as a table of functions that check a running proxy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import proxy_requests as requests
import proxy_traffic as traffic
from proxied import Proxied

BEHAVIOURS: Mapping[str, Callable[[Proxied], None]] = {
    function.__name__: function
    for function in (
        requests.prediction,
        requests.forged_headers,
        requests.forged_port,
        requests.forged_certificates,
        requests.client_certificate,
        requests.body_limits,
        requests.readable_errors,
        requests.unknown_host,
        requests.own_errors,
        requests.clear_text,
        requests.tls_versions,
        requests.smuggling,
        requests.folded_lines,
        requests.hop_by_hop,
        requests.http_1_0,
        traffic.slow_requests,
        traffic.streams,
        traffic.slow_readers,
        traffic.time_limit,
        traffic.server_header,
        traffic.access_log,
        traffic.cache,
        traffic.http2,
        traffic.steering_responses,
        traffic.only_local_metrics,
    )
}
"""The table for a proxy that is started once; :mod:`proxy_traffic` has further checks with other options."""
