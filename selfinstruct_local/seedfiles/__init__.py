"""Seed files as a person keeps them: checked for faults, counted, and made from other formats."""
