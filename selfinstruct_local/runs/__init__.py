"""Runs: their database, summaries, rejudging and exports."""
