"""API keys: their form, where they are stored, and how they are issued, rotated and revoked."""
