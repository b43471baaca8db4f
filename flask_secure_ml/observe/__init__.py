"""RECORD: what happened, for people and machines."""
