"""What is done between the steps of a training: sealing checkpoints, stopping at signals and NaNs, TensorBoard's files.

Where several processes train, all must do the same after a step, or those that go on would wait for the others forever.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from selfinstruct_local.errors import RunError
from selfinstruct_local.io.interrupt import Interrupt
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


class Divergence(TrainerCallback):
    """Ends the training with an error at the first loss, gradient norm or weight that is not finite.

    It comes after the callbacks that ask for checkpoints: the Trainer logs a step before it saves one, so that no
    checkpoint of such weights is written, and none is deleted for it.
    """

    def __init__(self) -> None:
        self._weights_are_finite = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Looks at the weights that are about to be saved; the log of the step follows, and tells more."""
        if control.should_save or state.global_step >= state.max_steps:
            self._weights_are_finite = _are_finite(kwargs["model"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Checks the values of the step, or the held-out loss.

        Raises:
            RunError: one of them is not finite.
        """
        for name, what in (("loss", "loss"), ("grad_norm", "gradient norm"), ("eval_loss", "held-out loss")):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                raise _diverged(args, state, f"the {what} is {value}")
        if not self._weights_are_finite:
            raise _diverged(args, state, "a weight is no longer a finite number")

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Looks at the weights if they are about to be saved; the last step has been logged by now.

        Raises:
            RunError: one of them is not finite.
        """
        if control.should_save and not _are_finite(kwargs["model"]):
            raise _diverged(args, state, "a weight is no longer a finite number")


def _are_finite(network: torch.nn.Module) -> bool:
    """Whether all trained weights are, in all processes; so large that their squares are not counts as infinite."""
    finite = torch.tensor(1)
    for parameter in network.parameters():
        if parameter.requires_grad:
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            norm = torch.linalg.vector_norm(local.detach(), dtype=torch.float32)
            finite = finite.to(norm.device) * norm.isfinite()
    if dist.is_initialized():
        dist.all_reduce(finite, dist.ReduceOp.MIN)
    return bool(finite)


def _diverged(args: TrainingArguments, state: TrainerState, what: str) -> RunError:
    precise = ", or train with precision: fp32 (--config)" if args.bf16 else ""
    return RunError(
        f"step {state.global_step}: {what}, so the training was stopped and this step is not saved; lower "
        f"--learning-rate (now {args.learning_rate:g}){precise}; changed settings need another --out"
    )


def _ends_epoch(state: TrainerState) -> bool:
    return bool(state.epoch) and float(state.epoch).is_integer()


def make_event_files(out: Path, step: int) -> TrainerCallback:
    """Writes TensorBoard's files into `out`/tensorboard; what an earlier start wrote beyond `step` is passed over."""
    from torch.utils.tensorboard import SummaryWriter

    make_writer: Any = SummaryWriter  # these two are without types
    make_callback: Any = TensorBoardCallback
    callback: TrainerCallback = make_callback(make_writer(log_dir=str(out / "tensorboard"), purge_step=step + 1))
    return callback
