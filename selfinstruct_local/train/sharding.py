"""Training that is sharded over the devices: transformers' FSDP2 at load, with checkpoints that resume.

transformers divides the weights while it loads them (`from_pretrained(distributed_config=...)`), so that no process
ever holds a whole model; gradients and the states of the optimizer are divided like their weights (Zhao et al. 2023).
Its Trainer does not save the optimizer of such a model. Here each process writes and reads its own shards by PyTorch's
distributed checkpoints, which fit another number of processes too. It works the same on GPUs and, by gloo, on CPUs.
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
# Of an adapter's training the frozen base is not written.
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)


class ShardedTrainer(Trainer):
    """A Trainer whose checkpoints hold a shard of each process; its arguments say `save_only_model`.

    That argument keeps the Trainer from refusing checkpoints, and from writing states that it does not know how to
    write: all of a checkpoint but the Trainer's own state is written here.
    """

    # The Trainer's types allow None, which they are no more when a checkpoint is due.
    model: Any
    optimizer: Any
    lr_scheduler: Any

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002 - the Trainer's signature
        """Writes the whole model, gathered in the first process's memory, or the shards of a checkpoint."""
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
        elif self.args.should_save:  # an adapter is whole in each process, and its frozen base is not asked for
            trained = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
            self._save(output_dir, state_dict=trained)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Reads nothing: at this point there is no optimizer, whose states come with the weights."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Reads weights, states of the optimizer and the scheduler."""
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
    """Makes sure that a model is divided over the processes: trained whole in each, it would not fit or be slow.

    Raises:
        RunError: some of its weights are not.
    """
    whole = [name for name, parameter in network.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        message = f"fsdp: {len(whole)} weights are not sharded ({whole[0]}, ...); this transformers cannot shard them"
        raise RunError(message)
