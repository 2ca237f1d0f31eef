"""The languages of prompts, seeds and rules."""
