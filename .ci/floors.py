"""Write a requirements file that pins every dependency to its minimum version in pyproject.toml."""

import sys
import tomllib
from pathlib import Path

# The extras that the extra "test" includes.
EXTRAS = ("fast", "image", "metrics", "mlflow", "msgpack", "openapi", "redis", "sentry", "vault", "zstd")


def floors(pyproject: Path) -> list[str]:
    """Return ``name==minimum`` for each run-time dependency, including those of the extras in ``EXTRAS``."""
    project = tomllib.loads(pyproject.read_text())["project"]
    needed = list(project["dependencies"])
    for extra in EXTRAS:
        needed += project["optional-dependencies"][extra]
    return [each.replace(">=", "==") for each in needed]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(floors(Path("pyproject.toml"))) + "\n")
