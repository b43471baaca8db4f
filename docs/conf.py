"""How Sphinx builds the documentation."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "flask-secure-ml"
author = "flask-secure-ml contributors"
project_copyright = f"2026, {author}"
release = installed_version(project)
version = release

extensions = ["sphinx.ext.autodoc", "generated"]
exclude_patterns = ["_build"]
templates_path: list[str] = []
html_theme = "furo"
html_title = f"{project} {release}"
highlight_language = "none"
default_role = "literal"
smartquotes = False  # JSON is to be copied
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
