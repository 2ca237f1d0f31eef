"""Trainer callbacks: checkpoint manifests, stopping at a signal or a non-finite value, TensorBoard event files.

With several processes, all must take the same action after a step; otherwise those that continue wait forever for the
others.
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
    """Writes the manifest of each checkpoint after its last file is written."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the checkpoint's manifest once every process has written its shard."""
        if dist.is_initialized():
            dist.barrier()
        if args.should_save:
            seal(Path(str(args.output_dir)) / f"{PREFIX}{state.global_step}")


class Stopping(TrainerCallback):
    """Saves a checkpoint and ends the training after the step during which a signal arrived.

    Attributes:
        stopped: whether a signal ended the training before its last step.
    """

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Request a checkpoint and the end of training after a signal; at the end of an epoch, `on_epoch_end` saves."""
        if self._came() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = not _ends_epoch(state)
            control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Skip saving and evaluation if a signal ended the training within an epoch.

        The Trainer treats every end of training as the end of an epoch: it would evaluate the held-out examples in the
        middle of an epoch and overwrite the checkpoint that was just saved.
        """
        if self.stopped:
            control.should_save = _ends_epoch(state)
            control.should_evaluate = control.should_evaluate and _ends_epoch(state)
        return control

    def _came(self) -> bool:
        """Return whether any process received a signal; some receive it later than others, or never."""
        signum = self._interrupt.signum or 0
        if dist.is_initialized():
            latest = torch.tensor([signum], device="cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(latest, dist.ReduceOp.MAX)
            signum = int(latest)
            if signum and self._interrupt.signum is None:
                self._interrupt.note(signum)
        return bool(signum)


class Divergence(TrainerCallback):
    """Raises an error at the first loss, gradient norm or weight that is not finite.

    Runs after the callbacks that request checkpoints. The Trainer logs a step before it saves a checkpoint, so no
    checkpoint with such weights is written and no older one is deleted for it.
    """

    def __init__(self) -> None:
        self._weights_are_finite = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check the weights if they are about to be saved; `on_log` follows and reports a more specific cause first."""
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
        """Check the loss and gradient norm of a step, or the held-out loss.

        Raises:
            RunError: one of them, or a weight, is not finite.
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
        """Check the weights if they are about to be saved; `on_log` has already run for the last step.

        Raises:
            RunError: a weight is not finite.
        """
        if control.should_save and not _are_finite(kwargs["model"]):
            raise _diverged(args, state, "a weight is no longer a finite number")


def _are_finite(network: torch.nn.Module) -> bool:
    """Return whether all trainable weights of all processes are finite; one whose square overflows is not."""
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
        f"step {state.global_step}: {what}; the training was stopped and this step is not saved; lower "
        f"--learning-rate (now {args.learning_rate:g}){precise}; changed settings need another --out"
    )


def _ends_epoch(state: TrainerState) -> bool:
    return bool(state.epoch) and float(state.epoch).is_integer()


def make_event_files(out: Path, step: int) -> TrainerCallback:
    """Return a callback that writes `out`/tensorboard; events of an earlier start after `step` are ignored."""
    from torch.utils.tensorboard import SummaryWriter

    make_writer: Any = SummaryWriter  # these two have no type annotations
    make_callback: Any = TensorBoardCallback
    callback: TrainerCallback = make_callback(make_writer(log_dir=str(out / "tensorboard"), purge_step=step + 1))
    return callback
