"""The settings of what is logged of requests and published about routes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..policy.fields import Choice, Number, Options, String
from ..policy.schema import option
from ..secrets import Secret, SecretRing
from .fields import Location, SecretReference, UrlPath, setting

_WORD = re.compile(r"[A-Za-z0-9._+:/@-]{1,128}")


@dataclass(frozen=True)
class Model:
    """The model that an app serves, as its registry names it."""

    name: str = option(String("1 to 128 letters, digits or ._+:/@-", _WORD), help_text="Its name.")
    version: str | None = option(
        String("1 to 128 letters, digits or ._+:/@-", _WORD), None, "Its version, such as a number, a tag or a digest."
    )

    @property
    def labels(self) -> dict[str, str]:
        """What is known of it, by name."""
        return {"name": self.name} if self.version is None else {"name": self.name, "version": self.version}


@dataclass(frozen=True)
class ObservabilitySettings:
    """What is logged of requests and published about routes."""

    request_log: str = setting(
        Location("stderr", "stdout", "off", prefix="logging:"),
        "stderr",
        """Where the request log goes, one JSON line a request: ``stderr``, ``stdout``, ``off``, the path of a
        file, which is opened again when it is rotated, or ``logging:NAME`` for a logger of Python's ``logging``.
        Lines that cannot be written are dropped and counted.""",
    )
    request_log_sample: float = setting(
        Number(0, 1),
        1.0,
        """The share of the 2xx responses that the request log has a line for, such as ``0.01``; other responses and
        broken streams are always logged.""",
    )
    model: Model | None = setting(
        Options(Model),
        None,
        """The model that is served, such as ``{"name": "digits", "version": "3"}``: part of each line of the request
        log, and with metrics the series ``secure_ml_model_info``.""",
    )
    sentry_dsn: SecretRing | None = setting(
        SecretReference(lambda value: SecretRing(Secret(value, minimum=1))),
        None,
        """A reference to the DSN of a Sentry project (extra ``[sentry]``), which gets errors without payload,
        variables, query and headers. The client of an app that sets up Sentry itself stays, and is scrubbed. See
        :doc:`/howto/errors_to_sentry`.""",
    )
    metrics: str | None = setting(
        UrlPath("/metrics"),
        None,
        """The path at which metrics are served in the format of Prometheus, to callers with the scope ``metrics``, such
        as ``/metrics`` (extra ``[metrics]``). See :doc:`/howto/metrics`.""",
    )
    error_body: str = setting(
        Choice("app", "ours"),
        "app",
        """Who writes the body of a rejection, and of Flask's own 404, 405 and 500, in an app with error handlers of its
        own: ``app`` keeps what they wrote, and adds the ``errors`` of a 422 to a JSON object; ``ours`` replaces it with
        the problem document. Errors that the app raises itself stay as they are. See
        :doc:`/howto/working_with`.""",
    )
    openapi: str = setting(
        Choice("off", "public", "protected"),
        "off",
        """Serve the OpenAPI description of the app as ``/openapi.json`` and a page to read and try it as ``/docs``
        (extra ``[openapi]``): ``public`` to everyone, ``protected`` to every caller with a valid credential.""",
    )
