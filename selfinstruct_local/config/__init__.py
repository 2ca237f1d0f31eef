"""Settings: merging of defaults, a YAML file and flags into a pydantic model."""
