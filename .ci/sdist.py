"""Check that the sdist is complete: build the documentation and run tests from it, with the wheel built from it."""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Files of the repository that distributors do not need.
NOT_SHIPPED = {".gitignore"}
# Together, these need the package data, the documentation, the corpus and the test helpers.
TESTS = ["tests/test_packaging.py", "tests/test_exports.py", "tests/test_standards.py", "tests/docs", "tests/openapi"]


def main() -> None:
    """Run every step in a temporary directory; exit at the first failure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # The wheel is built from the sdist, as users get it.
        run("-m", "build", "--outdir", folder, ROOT)
        sdist, wheel = next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        unpacked = folder / sdist.name.removesuffix(".tar.gz")
        if missing := tracked() - {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")} - NOT_SHIPPED:
            sys.exit(f"not in the sdist: {', '.join(sorted(missing))}")
        run("-m", "pip", "install", "--quiet", "--no-deps", "--target", folder / "site", wheel)
        environ = os.environ | {"PYTHONPATH": str(folder / "site")}
        run("-m", "sphinx", "-W", "-q", "-b", "html", "docs", folder / "html", cwd=unpacked, env=environ)
        run("-m", "pytest", "-q", "-m", "not server", *TESTS, cwd=unpacked, env=environ)


def tracked() -> set[str]:
    """Return the files that Git tracks; an empty set outside a checkout."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return set(done.stdout.splitlines())


def run(*arguments: str | Path, **options: object) -> None:
    """Run Python with arguments; exit with its status if it fails."""
    done = subprocess.run([sys.executable, *map(str, arguments)], check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
