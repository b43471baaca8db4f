"""Stands for the package label-studio-ml, whose release on PyPI needs Flask 1.1."""
