"""Write the exact floor of every dependency in pyproject.toml as a requirements file."""

import sys
import tomllib
from pathlib import Path

# Those that are in the extra "test".
EXTRAS = ("fast", "image", "metrics", "mlflow", "msgpack", "openapi", "redis", "sentry", "vault", "zstd")


def floors(pyproject: Path) -> list[str]:
    """Return ``name==floor`` for each run-time dependency, those of the small extras included."""
    project = tomllib.loads(pyproject.read_text())["project"]
    needed = list(project["dependencies"])
    for extra in EXTRAS:
        needed += project["optional-dependencies"][extra]
    return [each.replace(">=", "==") for each in needed]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(floors(Path("pyproject.toml"))) + "\n")
