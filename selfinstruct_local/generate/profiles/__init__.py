"""The ways of asking for tasks, one module each, what they share, and their registry."""
