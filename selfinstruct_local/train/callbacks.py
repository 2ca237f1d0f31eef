"""What is done between the steps of a training: sealing checkpoints, and stopping at a signal."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from selfinstruct_local.interrupt import Interrupt
from selfinstruct_local.train.checkpoints import PREFIX, seal


class Sealing(TrainerCallback):
    """Writes the manifest of each checkpoint after its last file."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seals the checkpoint of this step."""
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
        """Asks for a checkpoint and the end if a signal came."""
        if self._interrupt.signum is not None and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control
