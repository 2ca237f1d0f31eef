"""A Trainer that loads the weights of a checkpoint in the layout in which they were saved.

transformers saves some models in the layout of their published files, which differs from the layout in memory: a
mixture of experts as one tensor per expert, Gemma 3 under other names. Its Trainer looks for the in-memory names and
skips missing ones, so it would resume such a model from the base model's weights.
"""

from typing import Any

from transformers import PreTrainedModel, Trainer


class WholeTrainer(Trainer):
    """Resumes a fully fine-tuned model with transformers' own loader, and an adapter with PEFT's."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        network: Any = self.model if model is None else model
        if not isinstance(network, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        loader: Any = type(network)  # has no type annotations
        saved = loader.from_pretrained(resume_from_checkpoint, dtype=network.dtype, local_files_only=True)
        network.load_state_dict(saved.state_dict())
