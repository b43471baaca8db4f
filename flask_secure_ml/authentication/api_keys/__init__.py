"""API keys: their form, their stores, and how they are issued, rotated and revoked."""
