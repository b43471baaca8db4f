"""The options and the execution of audit log verification."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from ..observe.audit.findings import Report
from ..observe.audit.index import CHECKPOINT, INDEX
from ..observe.audit.keys import APP_KEYS, load_verification_key
from ..observe.audit.stream import STREAMS
from ..observe.audit.verify import log_bytes, verify_log
from ..refresh import sentence_of

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Verification:
    """The inputs of a verification.

    :param key: the file of the verification key.
    :param outside: open files with external checkpoints, stored by a sink.
    """

    key: Path
    outside: Sequence[Any]
    max_age: int | None
    retention_days: int | None

    def run(self, folder: Path) -> Report:
        """Verify a log, with a progress bar.

        :raises click.UsageError: a file cannot be read.
        """
        try:
            found = load_verification_key(self.key)
            content = "\n".join(each.read() for each in self.outside) if self.outside else None
            # If external checkpoints are given, a missing log is tampering.
            if content is None:
                check_is_log(folder)
            with click.progressbar(length=log_bytes(folder), label="Verifying", file=sys.stderr) as bar:
                return verify_log(
                    folder,
                    found,
                    outside=content,
                    now=time.time(),
                    max_age=self.max_age,
                    retention_days=self.retention_days,
                    progress=bar.update,
                )
        except (OSError, ValueError) as error:
            raise click.UsageError(sentence_of(error)) from None


def check_is_log(folder: Path) -> None:
    """Raise an error if a directory contains no audit log.

    Otherwise the verification would report that nothing was changed.

    :raises click.UsageError: the directory contains no audit log.
    """
    if not any((folder / name).exists() for name in (APP_KEYS, INDEX, CHECKPOINT, STREAMS)):
        raise click.UsageError(f"{folder} contains no audit log: use the directory in SECURE_ML_AUDIT_LOG")


def existing_log(_ctx: click.Context, _param: click.Parameter, value: Path) -> Path:
    """Return the directory of an audit log; the callback of an argument."""
    check_is_log(value)
    return value


def verification_options(*, required: bool) -> Callable[[Function], Function]:
    """Add the options ``--key``, ``--checkpoint-from``, ``--max-age`` and ``--retention-days`` to a command."""
    options = (
        click.option(
            "--key",
            required=required,
            type=click.Path(dir_okay=False, path_type=Path),
            help="The verification key." if required else "The verification key. Default: do not verify the log.",
        ),
        click.option(
            "--checkpoint-from",
            "outside",
            type=click.File("r", encoding="utf-8", errors="replace"),
            multiple=True,
            help="A file with external checkpoints from a sink, plain or in syslog messages; can be repeated.",
        ),
        click.option(
            "--max-age", type=click.IntRange(min=1), help="The maximum age of the newest checkpoint in seconds."
        ),
        click.option(
            "--retention-days",
            type=click.IntRange(min=1),
            help="Days after which covered files may have been deleted. Default: never.",
        ),
    )

    def add(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add
