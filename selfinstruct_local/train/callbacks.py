"""What is done between the steps of a training: sealing checkpoints, stopping at a signal, TensorBoard's files.

Where several processes train, all must do the same after a step, or those that go on would wait for the others forever.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from selfinstruct_local.interrupt import Interrupt
from selfinstruct_local.train.checkpoints import PREFIX, seal


class Sealing(TrainerCallback):
    """Writes the manifest of each checkpoint after its last file."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seals the checkpoint of this step, once every process has written its part."""
        if dist.is_initialized():
            dist.barrier()
        if args.should_save:
            seal(Path(str(args.output_dir)) / f"{PREFIX}{state.global_step}")


class Stopping(TrainerCallback):
    """Ends the training after the step in which a signal came, with a checkpoint.

    Attributes:
        stopped: whether a signal ended it before its last step.
    """

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Asks for a checkpoint and the end if a signal came; at the end of an epoch, once that is done."""
        if self._came() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = not _ends_epoch(state)
            control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Keeps what is due at the end of an epoch from being done where a signal ended it.

        The Trainer takes any end for that of an epoch: it would measure the held-out loss in the middle of one, and
        write over the checkpoint that has just been sealed.
        """
        if self.stopped:
            control.should_save = _ends_epoch(state)
            control.should_evaluate = control.should_evaluate and _ends_epoch(state)
        return control

    def _came(self) -> bool:
        """Whether a signal came, to any of the processes: they get it at different moments, some perhaps never."""
        signum = self._interrupt.signum or 0
        if dist.is_initialized():
            latest = torch.tensor([signum], device="cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(latest, dist.ReduceOp.MAX)
            signum = int(latest)
            if signum and self._interrupt.signum is None:
                self._interrupt.note(signum)
        return bool(signum)


def _ends_epoch(state: TrainerState) -> bool:
    return bool(state.epoch) and float(state.epoch).is_integer()


def make_event_files(out: Path, step: int) -> TrainerCallback:
    """Writes TensorBoard's files into `out`/tensorboard; what an earlier start wrote beyond `step` is passed over."""
    from torch.utils.tensorboard import SummaryWriter

    make_writer: Any = SummaryWriter  # these two are without types
    make_callback: Any = TensorBoardCallback
    callback: TrainerCallback = make_callback(make_writer(log_dir=str(out / "tensorboard"), purge_step=step + 1))
    return callback
