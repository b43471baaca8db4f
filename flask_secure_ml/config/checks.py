"""The setting for ignored findings of ``flask secure-ml check``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError

from ..policy.fields import StrictField
from .fields import setting

_NAME = re.compile(r"SML[0-9]{3}(:.+)?")
_LONGEST = 500


def ignore_problem(name: object, reason: object) -> str | None:
    """Return the problem of one ignore entry, or None.

    :param name: the id of a finding, or id, colon and the name of its subject.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "must be the id of a finding, such as SML405, or id and subject, such as 'SML301:POST /feedback'"
    if not isinstance(reason, str) or not reason.strip() or not reason.isprintable() or len(reason) > _LONGEST:
        return "requires a reason: a sentence that explains why it is ignored"
    return None


class Ignores(StrictField):
    """An object with a reason for each finding; the command validates the ids."""

    def __init__(self) -> None:
        super().__init__('an object such as {"SML405": "this app has one worker"}')

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Mapping[str, str]:
        if not isinstance(value, Mapping):
            raise self.wrong(value)
        found = {str(name): ignore_problem(name, reason) for name, reason in value.items()}
        if problems := {name: problem for name, problem in found.items() if problem is not None}:
            raise ValidationError(problems)
        return dict(value)


@dataclass(frozen=True)
class CheckSettings:
    """Findings that ``flask secure-ml check`` ignores."""

    check_ignore: Mapping[str, str] = setting(
        Ignores(),
        {},
        """Findings that ``flask secure-ml check`` ignores, each with the reason, such as ``{"SML405": "this app has one
        worker"}``, or for one subject only ``{"SML301:POST /feedback": "anonymous feedback"}``. An unknown id is an
        error; an entry that matches no finding is a note. See :doc:`/reference/findings`.""",
    )
