"""What is told of requests and routes."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from .record import setting


@dataclass(frozen=True)
class ShownSettings:
    """What is told of requests and routes."""

    request_log: str = setting(
        "stderr",
        checks.text,
        """Where the request log goes, one JSON line a request: ``stderr``, ``stdout``, ``off`` or the path of a
        file, which is reopened when it is rotated.""",
    )
    openapi: str = setting(
        "off",
        checks.one_of("off", "public", "protected"),
        """Serve the OpenAPI description of the app as ``/openapi.json`` and a page to read and try it as ``/docs``
        (extra ``[openapi]``): ``public`` to everyone, ``protected`` to every caller with a valid credential.""",
    )
