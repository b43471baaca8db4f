"""The fields for schemas of request bodies."""
