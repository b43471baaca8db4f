"""Fields for schemas of request bodies."""
