"""The settings of one app: read, checked, and every problem told at once.

Every key is ``SECURE_ML_`` and the upper-case name of the field. The records, from which the reference page in the
documentation is generated, stand by topic in :mod:`flask_secure_ml.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, cast

from ..errors import ConfigError
from .cross_checks import contradictions, literal_secrets, shared_secrets, unknown_keys
from .settings import InputSettings, SharedSettings, ShownSettings, TokenSettings, TransportSettings, WayInSettings

PREFIX = "SECURE_ML_"


# A dataclass takes its fields from the last base first.
@dataclass(frozen=True)
class Settings(ShownSettings, InputSettings, SharedSettings, TokenSettings, WayInSettings, TransportSettings):
    """The checked settings of one app. Read once by ``init_app``; later changes have no effect."""

    @classmethod
    def load(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check every ``SECURE_ML_*`` key.

        :raises ConfigError: one sentence for each unknown key, wrong value and contradiction.
        """
        given = {key: value for key, value in config.items() if key.startswith(PREFIX)}
        problems = list(unknown_keys(given, {key_of(record) for record in settings_fields()}))
        values: dict[str, Any] = {}
        for record in settings_fields():
            if (name := key_of(record)) in given:
                _read(record, given[name], values, problems)
        settings = cls(**values)
        # What was given and is wrong is told once, not a second time as if it were missing.
        wrong = {problem.split(" ", 1)[0] for problem in problems}
        problems += [each for each in contradictions(settings) if each.split(" ", 1)[0] not in wrong]
        problems += shared_secrets(settings)
        if not (config.get("DEBUG") or config.get("TESTING")):
            problems += literal_secrets(settings)
        if problems:
            raise ConfigError(problems)
        return settings


def settings_fields() -> tuple[Field[Any], ...]:
    """Return the record of every setting, in the order of the reference page."""
    return fields(cast("Any", Settings))


def key_of(record: Field[Any]) -> str:
    """Return the configuration key of a setting."""
    return PREFIX + record.name.upper()


def _read(record: Field[Any], value: Any, values: dict[str, Any], problems: list[str]) -> None:
    try:
        values[record.name] = record.metadata["check"](value)
    except (TypeError, ValueError) as error:
        problems.append(f"{key_of(record)} {error}")
