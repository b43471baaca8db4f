"""``flask secure-ml deploy``: generates files for servers, proxies, containers and CI from the app's policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask.cli import with_appcontext

from ..describing import described_only
from .context import command_app, command_state, json_option, mistakes_as_messages, print_table, printable

if TYPE_CHECKING:
    from ..deploy.facts import Facts
    from ..deploy.files import FileState, Output
    from ..deploy.target import Target

_DONE = {"missing": "created", "differs": "updated", "edited": "overwritten", "stale": "removed"}


@click.command()
@click.argument("names", metavar="TARGET...", nargs=-1)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("deploy"),
    show_default=True,
    help="The output directory; each target gets a subdirectory.",
)
@click.option("--stdout", is_flag=True, help="Print the files instead of writing them.")
@click.option("--diff", is_flag=True, help="Print the differences to the files on disk, without writing.")
@click.option("--check", is_flag=True, help="Exit with 1 if a file on disk is out of date, without writing.")
@click.option("--force", is_flag=True, help="Also overwrite files that were edited by hand.")
@json_option
def deploy(names: tuple[str, ...], *, as_json: bool, **options: Any) -> None:
    """Generate files for each TARGET from the policies and settings of the app.

    "list" lists the targets and "all" generates all of them. Without a TARGET, the previously written ones are
    generated again. Set facts that the app does not know, such as its host name, in SECURE_ML_DEPLOY.
    """
    if names == ("list",):
        _list(as_json=as_json)
        return
    # A machine that writes or checks these files, such as a CI runner, need not have the secrets of the app.
    with described_only():
        with mistakes_as_messages():
            chosen = _chosen(names, options["out"])
        _deploy(chosen, as_json=as_json, **options)


@with_appcontext
def _deploy(
    chosen: list[Target], *, out: Path, stdout: bool, diff: bool, check: bool, force: bool, as_json: bool
) -> None:
    from ..deploy.facts import facts_of
    from ..deploy.files import Output

    command_state()
    with mistakes_as_messages():
        facts = facts_of(command_app())
        wanted = dict(_wanted(chosen, facts))
        output = Output(out, wanted, frozenset(target.name for target in chosen))
        if stdout:
            _print(wanted, as_json=as_json)
        elif diff or check:
            _compare(output, out, diff=diff, check=check, as_json=as_json)
        else:
            _write(output, out, force=force, as_json=as_json)
            _advise(chosen, facts, out)


def _list(*, as_json: bool) -> None:
    from ..deploy.targets import targets

    rows = [(target.name, target.summary) for target in targets().values()]
    if as_json:
        click.echo(json.dumps([{"name": name, "summary": summary} for name, summary in rows]))
    else:
        print_table([("Target", "Files"), *rows])


def _chosen(names: tuple[str, ...], out: Path) -> list[Target]:
    from ..deploy.files import written_targets
    from ..deploy.targets import targets

    known = targets()
    if not names and not (names := tuple(sorted(written_targets(out) & known.keys()))):
        raise click.UsageError(f"{out} has no generated files, so name a target: {', '.join(known)}")
    if "all" in names:
        return list(known.values())
    if unknown := [name for name in names if name not in known]:
        raise click.UsageError(f"unknown target {unknown[0]!r}; choose from: {', '.join(known)}, all, list")
    return [known[name] for name in dict.fromkeys(names)]


def _wanted(chosen: list[Target], facts: Facts) -> Iterator[tuple[str, str]]:
    for target in chosen:
        for path, content in target.make(facts).items():
            yield f"{target.name}/{path}", content


def _print(wanted: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(wanted))
        return
    for path, content in wanted.items():
        if len(wanted) > 1:
            click.secho(f"==> {path} <==", bold=True)
        click.echo(content, nl=not content.endswith("\n"))


def _compare(output: Output, out: Path, *, diff: bool, check: bool, as_json: bool) -> None:
    changed = [each for each in output.states() if each.state != "same"]
    if as_json:
        click.echo(json.dumps([{"path": str(out / each.path), "state": each.state} for each in changed]))
    elif diff:
        for line in output.diff():
            click.secho(printable(line), nl=not line.endswith("\n"), fg={"+": "green", "-": "red"}.get(line[0]))
    else:
        for each in changed:
            click.echo(f"{printable(str(out / each.path))}: {_IN_WORDS[each.state]}")
    if check and changed:
        raise click.ClickException(
            f"{len(changed)} {'file is' if len(changed) == 1 else 'files are'} out of date;"
            " run the command without --check to write them, or with --diff to print the differences"
        )


_IN_WORDS = {
    "missing": "is missing",
    "differs": "is out of date",
    "edited": "was edited by hand, or was not generated",
    "stale": "is no longer generated",
}


def _write(output: Output, out: Path, *, force: bool, as_json: bool) -> None:
    from ..deploy.files import EditedError

    try:
        done = output.write(force=force)
    except EditedError as error:
        edited = ", ".join(printable(str(out / path)) for path in error.paths)
        raise click.ClickException(
            f"these files were edited by hand: {edited}."
            " Move your edits to the overlay that the file names, or pass --force. No file was written"
        ) from None
    _report(done, out, as_json=as_json)


def _report(done: list[FileState], out: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{"path": str(out / each.path), "done": _DONE[each.state]} for each in done]))
        return
    for each in done:
        click.echo(f"{printable(str(out / each.path))}: {_DONE[each.state]}")
    if not done:
        click.echo(f"{out}: up to date")


def _advise(chosen: list[Target], facts: Facts, out: Path) -> None:
    if facts.settings.deploy is None:
        click.secho(
            "The host name, paths and other options are examples: set SECURE_ML_DEPLOY to those of your deployment.",
            fg="yellow",
            err=True,
        )
    # A warning of several targets is printed once.
    warnings: dict[str, list[str]] = {}
    for target in chosen:
        for warning in target.warnings(facts):
            warnings.setdefault(warning, []).append(target.name)
    for warning, names in warnings.items():
        click.secho(f"Warning ({', '.join(names)}): {warning}", fg="yellow", err=True)
    for target in chosen:
        folder = out / target.name
        absolute = folder if folder.is_absolute() else f"$PWD/{folder}"
        for line in target.advice:
            click.echo(line.format(folder=folder, absolute=absolute, options=facts.options), err=True)
