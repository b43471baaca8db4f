"""The commands in the runbook exist and accept the documented options."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from flask_secure_ml.cli import secure_ml
from monitoring import ALERTS_PAGE, METRICS_PAGE

COMMANDS = sorted(
    {
        command.strip()
        for page in (ALERTS_PAGE, METRICS_PAGE)
        for command in re.findall(r"flask secure-ml ([^`>\n]+)", page.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command(line: str) -> None:
    """Its words are parsed, and none is missing."""
    context = click.Context(secure_ml)
    name, *words = shlex.split(line)
    command = secure_ml.get_command(context, name)
    if isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(context, name)
    assert command is not None
    command.make_context(name, words)


def test_what_ends_an_attack_is_there() -> None:
    """Each of the commands that the runbook is for."""
    named = {" ".join(command.split()[:2]) for command in COMMANDS}
    assert {"limits list", "limits show", "limits clear", "keys revoke", "revocations principal"} <= named
