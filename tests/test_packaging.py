"""The package metadata matches the tested versions and existing files."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def parsed(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / name, encoding="utf-8")
    return parser


def pythons_of_tox() -> set[str]:
    """Return the minor versions of Python that tox runs the tests on."""
    tox = parsed("tox.ini")
    environments = tox["tox"]["env_list"].split()
    cells = [minor for each in environments for minor in re.findall(r"^py3(\d+)-flask", each)]
    named = [tox[f"testenv:{each}"] for each in environments if f"testenv:{each}" in tox]
    # The others are for machines without the first.
    cells += [each["base_python"].split()[0].removeprefix("python3.") for each in named if "base_python" in each]
    # Environments without a Python in their name or options, such as "servers", run on the first one.
    first = re.findall(r"for minor in 3\.(\d+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert len(first) == 1
    return {f"3.{minor}" for minor in (*cells, *first)}


def test_only_pythons_of_tox_are_claimed() -> None:
    """In the classifiers, in the README, and in the job that runs everything."""
    classified = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)}
    readme = re.search(r"Python (3\.\d+) to (3\.\d+)", (ROOT / "README.rst").read_text(encoding="utf-8"))
    assert readme is not None
    assert classified == pythons_of_tox()
    assert sorted(readme.groups()) == [min(classified), max(classified)]
    assert PROJECT["requires-python"] == f">={min(classified)}"


def test_package_data_exists() -> None:
    """Each pattern finds a file."""
    patterns = parsed("setup.cfg")["options.package_data"]["flask_secure_ml"].split()
    assert [pattern for pattern in patterns if not list((ROOT / "flask_secure_ml").glob(pattern))] == []


def test_every_file_beside_the_code_is_package_data() -> None:
    """All files that the package reads at run time are in the wheel."""
    package = ROOT / "flask_secure_ml"
    patterns = parsed("setup.cfg")["options.package_data"]["flask_secure_ml"].split()
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    beside = {path for path in package.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert beside - shipped == set()


def test_the_sdist_has_what_a_distributor_needs() -> None:
    """Folders whole, and the files that the tools read."""
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    named = {word for line in lines for word in line.split()[1:] if line.startswith(("graft", "include"))}
    assert {
        ".ci",
        "benchmarks",
        "deploy",
        "docs",
        "example_app",
        "tests",
        "tox.ini",
        "Makefile",
        "CHANGES.rst",
    } <= named
    assert [each for each in named if not (ROOT / each).exists()] == []


@pytest.mark.parametrize("name", ["Documentation", "Source", "Changelog", "Issues"])
def test_links(name: str) -> None:
    """The package index shows where to read on and where to report."""
    assert PROJECT["urls"][name].startswith("https://github.com/flask-secure-ml/flask-secure-ml")


def test_proofs_name_what_exists() -> None:
    """Each path in the proofs of ``make prove`` exists: with a missing one pytest runs nothing."""
    proofs = (ROOT / ".ci" / "prove.py").read_text(encoding="utf-8")
    paths = re.findall(r'"((?:tests/|\.ci/)[^"]*)"', proofs)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
