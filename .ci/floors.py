"""Write the exact floor of every dependency in pyproject.toml as a requirements file."""

import sys
import tomllib
from pathlib import Path


def floors(pyproject: Path) -> list[str]:
    """Return ``name==floor`` for each run-time dependency, those of the redis extra included."""
    project = tomllib.loads(pyproject.read_text())["project"]
    return [each.replace(">=", "==") for each in project["dependencies"] + project["optional-dependencies"]["redis"]]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(floors(Path("pyproject.toml"))) + "\n")
