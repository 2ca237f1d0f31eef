"""A Trainer that reads the weights of a checkpoint as they were written.

transformers saves some models in the layout of their published files, which is not the layout in memory: a mixture of
experts as one tensor per expert, Gemma 3 under other names. Its Trainer looks for the names in memory, skips what it
does not find, and so would resume such a model from the weights of its base.
"""

from typing import Any

from transformers import PreTrainedModel, Trainer


class WholeTrainer(Trainer):
    """Resumes a model that is trained whole by transformers' own loader; of an adapter PEFT's is used."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        network: Any = self.model if model is None else model
        if not isinstance(network, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        loader: Any = type(network)  # without types
        saved = loader.from_pretrained(resume_from_checkpoint, dtype=network.dtype, local_files_only=True)
        network.load_state_dict(saved.state_dict())
