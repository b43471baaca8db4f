"""The report as SARIF 2.1.0, for code scanning in GitHub, GitLab and Azure DevOps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .finding import Check, Finding, Where

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "SRCROOT"
_IN_URLS = "/?#[]%:@!$&'()*+,;=~"
_REPOSITORY = "https://github.com/flask-secure-ml/flask-secure-ml"


def sarif(findings: Sequence[Finding], checks: Sequence[Check], *, version: str, folder: Path, source: str) -> Any:
    """Return the log (SARIF 2.1.0 section 3.13) of one run.

    :param checks: all checks, including those that did not run: the rules of the run.
    :param version: of this package.
    :param folder: the root of the repository; paths are relative to it.
    :param source: the file of the app, for findings that have no file.
    """
    index = {check.id: number for number, check in enumerate(checks)}
    driver = {
        "name": "flask-secure-ml",
        "version": version,
        "informationUri": _REPOSITORY,
        "rules": [_rule(check) for check in checks],
    }
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {_ROOT: {"uri": f"{folder.resolve().as_uri()}/"}},
        "invocations": [{"executionSuccessful": True}],
        "results": [_result(each, index, folder, source) for each in findings],
        "columnKind": "utf16CodeUnits",
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(check: Check) -> dict[str, Any]:
    return {
        "id": check.id,
        "shortDescription": {"text": f"{check.title}."},
        "fullDescription": {"text": check.why},
        "help": {"text": f"{check.why} Fix: {check.fix}"},
        "defaultConfiguration": {"level": str(check.severity)},
    }


def _result(finding: Finding, index: Mapping[str, int], folder: Path, source: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ruleId": finding.check.id,
        "ruleIndex": index[finding.check.id],
        "level": str(finding.severity),
        "message": {"text": _unlinked(f"{finding.what}. {finding.check.why} Fix: {finding.fix}")},
        "locations": [_location(finding.where, folder, source)],
        "partialFingerprints": {"finding/v1": _fingerprint(finding)},
    }
    if finding.ignored:
        found["suppressions"] = [{"kind": "external", "status": "accepted", "justification": finding.ignored}]
    return found


def _unlinked(text: str) -> str:
    """Return a message without links (SARIF 2.1.0 section 3.11.6).

    A checked service could inject them through its headers.
    """
    return text.replace("](", "] (")


def _location(where: Where, folder: Path, source: str) -> dict[str, Any]:
    """Return a location in a file, which code scanning requires, and the subject of the finding."""
    file = where.file or (where.name if where.kind in {"file", "url"} else source)
    physical: dict[str, Any] = {"artifactLocation": _artifact(file, folder)}
    if where.kind != "url":
        physical["region"] = {"startLine": max(where.line, 1)}
    return {
        "physicalLocation": physical,
        "logicalLocations": [{"fullyQualifiedName": where.name, "kind": where.kind}],
    }


def _artifact(file: str, folder: Path) -> dict[str, str]:
    if file.startswith(("http://", "https://")):
        return {"uri": quote(file, safe=_IN_URLS)}
    path = (folder / file).resolve()
    try:
        return {"uri": quote(path.relative_to(folder.resolve()).as_posix()), "uriBaseId": _ROOT}
    except ValueError:
        return {"uri": path.as_uri()}


def _fingerprint(finding: Finding) -> str:
    """Return a fingerprint that does not depend on line numbers."""
    return sha256(f"{finding.check.id} {finding.where}".encode()).hexdigest()[:32]
