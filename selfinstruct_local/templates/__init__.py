"""Prompt and chat templates: the text or tokens of a task or a conversation."""
