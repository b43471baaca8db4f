"""The templates of the generated files, one folder for each target."""

from pathlib import Path

DIRECTORY = Path(__file__).parent
