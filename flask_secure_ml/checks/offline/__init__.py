"""Checks that read the app and its configuration; the only dependency that they call is the key store."""

from __future__ import annotations

from . import (
    authentication,
    browsers,
    deployment,
    files,
    issuers,
    models,
    observability,
    policies,
    sources,
    stores,
    transport,
    unread,
)

OFFLINE = (
    *transport.CHECKS,
    *authentication.CHECKS,
    *issuers.CHECKS,
    *policies.CHECKS,
    *stores.CHECKS,
    *browsers.CHECKS,
    *observability.CHECKS,
    *files.CHECKS,
    *unread.CHECKS,
    *deployment.CHECKS,
    *sources.CHECKS,
    *models.CHECKS,
)
"""All offline checks, in the order of the report."""
