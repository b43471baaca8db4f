"""Recorders: what happened, for people and machines."""
