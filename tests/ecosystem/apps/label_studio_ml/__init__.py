"""Stands for the package label-studio-ml: its releases on PyPI need Flask 1.1, and later versions are not there."""
