"""Checks that call the running service, through any proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..finding import Finding
from ..own import SLOW
from ..run import Progress, run, silent
from . import exposure, forwarded, rejections, response_headers, tls
from .site import Site

URL = (*tls.CHECKS, *response_headers.CHECKS, *forwarded.CHECKS, *rejections.CHECKS, *exposure.CHECKS)
"""All URL checks, in the order in which they run."""

_MOST_SHOWN = 500
"""Maximum number of characters in the sentence of a finding."""


def run_url(site: Site, *, seconds: float, progress: Progress = silent) -> Iterator[Finding]:
    """Yield the findings about a service; only the first if it does not respond.

    :param seconds: the time limit for one check.
    """
    first, others = URL[:1], URL[1:]
    found = list(run(first, site, seconds=seconds, progress=progress))
    for finding in found:
        yield _masked(finding, site)
    for finding in run(others, site, seconds=seconds, progress=progress) if not found else ():
        yield _masked(finding, site)
        if finding.check is SLOW:
            return


def _masked(finding: Finding, site: Site) -> Finding:
    """Return a finding without the credential and with a limited length."""
    name, what = (site.client.masked(text)[:_MOST_SHOWN] for text in (finding.where.name, finding.what))
    return replace(finding, where=replace(finding.where, name=name), what=what)
