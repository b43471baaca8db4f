"""Directives for the reference pages that are generated from the code, so that they cannot drift from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from flask_secure_ml import errors
from flask_secure_ml.checks import CHECKS
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.config import key_of, settings_by_group
from flask_secure_ml.config.providers import PROVIDERS
from flask_secure_ml.policy.fields import ListOf, MappingOf, Options
from flask_secure_ml.policy.policy import Policy
from flask_secure_ml.policy.schema import options_of


class Generated(SphinxDirective):
    """A directive whose content is what :meth:`lines` returns."""

    def lines(self) -> Iterable[str]:
        """Return lines of reStructuredText."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the lines in place."""
        text = "\n".join(self.lines())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class SettingsPage(Generated):
    """One section for each group of settings, and in it one for each setting."""

    def lines(self) -> Iterator[str]:
        """Yield the title and the summary of each group, then its settings."""
        for title, summary, records in settings_by_group():
            yield from (title, "-" * len(title), "", summary, "")
            for record in records:
                yield from _setting(record)


class ProviderTable(Generated):
    """One row for each option of the preset that the argument names."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield a list-table of the options and their values."""
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 30 70", "")
        yield from _row("Option of the preset", "Value")
        for name, value in PROVIDERS[self.arguments[0]].options.items():
            yield from _row(f"``{name}``", f"``{json.dumps(value)}``")


class ErrorsTable(Generated):
    """One row for each code of a problem document."""

    def lines(self) -> Iterator[str]:
        """Yield a list-table of status, code, public detail and meaning."""
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 8 22 35 35", "")
        yield from _row("Status", "code", "detail", "When")
        for error in sorted(_leaves(), key=lambda each: (each.code or 0, each.slug)):
            summary = " ".join((error.__doc__ or "").split())
            yield from _row(str(error.code), f"``{error.slug}``", error.detail, summary)


class FindingsTable(Generated):
    """One row for each check of the doctor whose id begins with the argument."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield a list-table of id, severity, title, consequence and what fixes it."""
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 9 9 22 35 25", "")
        yield from _row("Id", "Severity", "Finding", "Why", "Fix")
        for check in CHECKS:
            if check.id.startswith(self.arguments[0]):
                fix = f"``{check.fix}``"
                yield from _row(check.id, str(check.severity), check.title, check.why, fix)


class CliPage(Generated):
    """One section for each command."""

    def lines(self) -> Iterator[str]:
        """Yield the help of the group and of every command in it, as the terminal prints it."""
        yield from _help(secure_ml, "flask secure-ml", None)


def _setting(record: Field[Any]) -> Iterator[str]:
    """Yield the key as a heading, then its environment variable, type and default, and its help."""
    key, kind = key_of(record.name), record.metadata["field"]
    yield from (f".. _{key}:", "", key, "~" * len(key), "")
    yield from (f":Environment: ``FLASK_{key}``", f":Type: {kind.takes}", f":Default: {_default(record)}", "")
    yield from (record.metadata["help"], "")
    # The options of a policy have a how-to of their own.
    if isinstance(kind, (ListOf, MappingOf)) and kind.inner.kind is not Policy:
        yield from _options(kind.inner.kind)
    elif isinstance(kind, Options):
        yield from _options(kind.kind)


def _default(record: Field[Any]) -> str:
    default = record.metadata["default"]
    return "not set" if default is None else f"``{json.dumps(default)}``"


def _options(kind: type[Any]) -> Iterator[str]:
    """Yield a table of the options of an object in a setting."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 20 35 45", "")
    yield from _row("Option", "Type", "Meaning")
    for name, record in options_of(kind).items():
        needed = " (required)" if record.default_factory is MISSING else ""
        yield from _row(f"``{name}``{needed}", record.metadata["field"].takes, record.metadata["help"])
    yield ""


def _row(*cells: str) -> Iterator[str]:
    for number, cell in enumerate(cells):
        yield f"   {' ' if number else '*'} - {cell}"


def _leaves() -> list[type[errors.SecureMLError]]:
    return errors.SecureMLError.__subclasses__()


def _help(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=90)
    title = context.command_path
    yield from (title, "-" * len(title), "", ".. code-block:: none", "")
    yield from (f"   {line}".rstrip() for line in command.get_help(context).splitlines())
    yield ""
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            if found is not None:
                yield from _help(found, each, context)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("secure-ml-settings", SettingsPage)
    app.add_directive("secure-ml-provider", ProviderTable)
    app.add_directive("secure-ml-errors", ErrorsTable)
    app.add_directive("secure-ml-findings", FindingsTable)
    app.add_directive("secure-ml-cli", CliPage)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
