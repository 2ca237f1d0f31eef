"""Translating and polishing accepted tasks: the profile of it, its checks, and the run it writes into."""
