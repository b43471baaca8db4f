"""Directives for the reference pages that are made from the code, so that they cannot drift from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from flask_secure_ml import errors
from flask_secure_ml.cli import secure_ml
from flask_secure_ml.config import key_of, settings_fields


class Generated(SphinxDirective):
    """A directive whose content is text that :meth:`lines` makes."""

    def lines(self) -> Iterable[str]:
        """Return lines of reStructuredText."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the lines in place."""
        text = "\n".join(self.lines())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class SettingsPage(Generated):
    """One section for each configuration key."""

    def lines(self) -> Iterator[str]:
        """Return the key as a heading, then its default and its help."""
        for record in settings_fields():
            key = key_of(record)
            yield from (f".. _{key}:", "", key, "-" * len(key), "")
            yield from (f"Default: {_shown(record.metadata['shown'])}", "", record.metadata["help"], "")


class ErrorsTable(Generated):
    """One row for each code of a problem document."""

    def lines(self) -> Iterator[str]:
        """Return a list-table of status, code, public text and meaning."""
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 8 22 35 35", "")
        yield from _row("Status", "code", "detail", "When")
        for error in sorted(_leaves(), key=lambda each: (each.code or 0, each.slug)):
            summary = " ".join((error.__doc__ or "").split())
            yield from _row(str(error.code), f"``{error.slug}``", error.detail, summary)


class CliPage(Generated):
    """One section for each command."""

    def lines(self) -> Iterator[str]:
        """Return the help of the group and of every command in it, as the terminal shows it."""
        yield from _help(secure_ml, "flask secure-ml", None)


def _shown(default: Any) -> str:
    return "not set" if default is None else f"``{json.dumps(default)}``"


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
            yield from _help(command.commands[each], each, context)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("secure-ml-settings", SettingsPage)
    app.add_directive("secure-ml-errors", ErrorsTable)
    app.add_directive("secure-ml-cli", CliPage)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
