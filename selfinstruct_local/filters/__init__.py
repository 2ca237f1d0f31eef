"""Filters that keep or reject tasks: rules, evaluation-set overlap, prompt echoes and novelty."""
