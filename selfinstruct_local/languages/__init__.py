"""The languages that prompts, seeds and rules are written in."""
