"""FSDP2 training, sharded by transformers during loading, with checkpoints that can be resumed.

transformers shards the weights while it loads them (`from_pretrained(distributed_config=...)`), so no process ever has
the whole model; gradients and optimizer states are sharded like their weights (Zhao et al. 2023). Its Trainer does not
save the optimizer of such a model. Here each process writes and reads its own shards with PyTorch's distributed
checkpoints, which can be loaded by a different number of processes. It works on GPUs and, with gloo, on CPUs.
"""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, Trainer

from selfinstruct_local.errors import RunError

_SHARDS = "shards"
_SCHEDULER = "scheduler.pt"
# LoRA checkpoints do not include the frozen base model.
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)


class ShardedTrainer(Trainer):
    """A Trainer whose checkpoints have one shard per process; requires `save_only_model=True`.

    With that argument the Trainer neither refuses to save checkpoints nor writes states that it cannot shard: this
    class writes everything in a checkpoint except for the Trainer's own state.
    """

    # The Trainer's annotations allow None, but these are set before the first checkpoint.
    model: Any
    optimizer: Any
    lr_scheduler: Any

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002 - the Trainer's signature
        """Write the whole model, gathered in the first process's memory, or the shards of a checkpoint."""
        if not _internal_call or output_dir is None:
            self._save_whole(output_dir)
            return
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save(self._state(), checkpoint_id=folder / _SHARDS)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), folder / _SCHEDULER)
        self._save_rng_state(output_dir)

    def _save_whole(self, output_dir: str | None) -> None:
        if isinstance(self.model, PreTrainedModel):
            super().save_model(output_dir)
        elif self.args.should_save:  # each process has the whole adapter; the frozen base is not saved
            trained = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
            self._save(output_dir, state_dict=trained)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Do nothing: weights and optimizer states are loaded together, once there is an optimizer."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load weights, optimizer states and scheduler."""
        if checkpoint is None:
            return
        state = self._state()
        load(state, checkpoint_id=Path(checkpoint) / _SHARDS)
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["weights"],
            optim_state_dict=state["optimizer"],
            options=_TRAINED,
        )
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / _SCHEDULER, weights_only=True))

    def _state(self) -> dict[str, Any]:
        weights, optimizer = get_state_dict(self.model, self.optimizer, options=_TRAINED)
        return {"weights": weights, "optimizer": optimizer}


def check_sharded(network: PreTrainedModel) -> None:
    """Raise RunError if a model is not sharded over the processes; replicated, it would be slow or run out of memory.

    Raises:
        RunError: some of its weights are not sharded.
    """
    whole = [name for name, parameter in network.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        message = (
            f"fsdp: {len(whole)} weights are not sharded ({whole[0]}, ...); this version of transformers cannot shard "
            "them"
        )
        raise RunError(message)
