"""The generation profiles, one module each, their shared code, and their registry."""
