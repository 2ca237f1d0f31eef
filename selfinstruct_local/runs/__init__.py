"""Runs: the database, how runs are made, looked at and exported."""
