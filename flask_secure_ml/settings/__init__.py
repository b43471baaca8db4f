"""The settings by topic: one record for each key, with its default, its check and its help."""
