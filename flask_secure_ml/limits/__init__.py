"""LIMIT, COST and ADMISSION: how much a caller may use, and how often a network may fail to authenticate."""
