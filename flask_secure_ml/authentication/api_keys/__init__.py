"""API keys: their format, their stores, and their issue, rotation and revocation."""
