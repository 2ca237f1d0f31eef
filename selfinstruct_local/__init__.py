"""Instruction-tuning data from a model you run yourself, and the fine-tuning to go with it."""

__version__ = "0.1.0"
