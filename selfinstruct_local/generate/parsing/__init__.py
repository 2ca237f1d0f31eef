"""Parsers that read tasks from completions: blocks, user turns, JSON, and the formats of the published programs."""
