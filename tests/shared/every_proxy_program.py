"""The parameters of tests that run with each proxy."""

from __future__ import annotations

import pytest

from httpd import APACHE
from programs import needs, tool_marks
from proxy_programs import CADDY, ENVOY, HAPROXY, NGINX

PROGRAMS = [
    pytest.param(NGINX, marks=needs("nginx"), id="nginx"),
    pytest.param(ENVOY, marks=tool_marks("envoy"), id="envoy"),
    pytest.param(HAPROXY, marks=needs("haproxy"), id="haproxy"),
    pytest.param(CADDY, marks=needs("caddy"), id="caddy"),
    pytest.param(APACHE, marks=needs("apache2"), id="apache"),
]
