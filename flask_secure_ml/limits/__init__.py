"""LIMIT, COST and ADMISSION: how much a caller may use, and how often an address may fail."""
