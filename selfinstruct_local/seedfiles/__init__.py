"""Hand-written seed files: checks, statistics, and import from other formats."""
