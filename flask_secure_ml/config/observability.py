"""The settings of the request log, error reports and the OpenAPI description."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..policy.fields import Choice, Number, Options, String
from ..policy.schema import option
from ..secrets import SecretRing, public_token_ring
from .fields import Location, SecretReference, setting

_WORD = re.compile(r"[A-Za-z0-9._+:/@-]{1,128}")


@dataclass(frozen=True)
class Model:
    """The model that an app serves."""

    name: str = option(String("1 to 128 letters, digits or ._+:/@-", _WORD), help_text="Its name.")
    version: str | None = option(
        String("1 to 128 letters, digits or ._+:/@-", _WORD), None, "Its version, such as a number, a tag or a digest."
    )

    @property
    def labels(self) -> dict[str, str]:
        """Return the name, and the version if it is known, as labels."""
        return {"name": self.name} if self.version is None else {"name": self.name, "version": self.version}

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


@dataclass(frozen=True)
class ObservabilitySettings:
    """The request log, error reports and the OpenAPI description."""

    request_log: str = setting(
        Location("stderr", "stdout", "off", prefix="logging:"),
        "stderr",
        """The destination of the request log, one JSON line per request: ``stderr``, ``stdout``, ``off``, the path of a
        file, which is reopened after rotation, or ``logging:NAME`` for a logger of Python's ``logging``. Lines that
        cannot be written are dropped and counted.""",
    )
    request_log_sample: float = setting(
        Number(0, 1),
        1.0,
        """The fraction of 2xx responses that are logged, such as ``0.01``; other responses and broken streams are
        always logged.""",
    )
    model: Model | None = setting(
        Options(Model),
        None,
        """The model that the app serves, such as ``{"name": "digits", "version": "3"}``: part of each line of the
        request log, of the audit records of requests whose body was accepted, and of the metric
        ``secure_ml_model_info``. A view that names its model, with ``used_model()``, overrides it in both logs.""",
    )
    sentry_dsn: SecretRing | None = setting(
        SecretReference(public_token_ring),
        None,
        """A reference to the DSN of a Sentry project (extra ``[sentry]``), which gets errors without payload,
        variables, query and headers. If the app initializes Sentry itself, its client is kept and its events are
        scrubbed. See :doc:`/howto/errors_to_sentry`.""",
    )
    error_body: str = setting(
        Choice("app", "ours"),
        "app",
        """Whose body is sent for rejections and for Flask's own 404, 405 and 500 if the app has its own error handlers:
        ``app`` keeps the body of the handler, and adds the ``errors`` of a 422 to a JSON object; ``ours`` replaces it
        with the problem document. Errors that the app raises itself are not changed. See
        :doc:`/howto/working_with`.""",
    )
    openapi: str = setting(
        Choice("off", "public", "protected"),
        "off",
        """Serve the OpenAPI description of the app as ``/openapi.json`` and an interactive page as ``/docs`` (extra
        ``[openapi]``): ``public`` to everyone, ``protected`` to callers with a valid credential.""",
    )
