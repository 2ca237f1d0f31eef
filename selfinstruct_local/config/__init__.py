"""Settings in general: merging defaults, a YAML file and flags into a pydantic model."""
