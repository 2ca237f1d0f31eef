"""Progress display of a training: step, loss, tokens per second, time left, memory."""

import resource
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from selfinstruct_local.io.progress import format_seconds
from selfinstruct_local.train.memory import GIB
from selfinstruct_local.train.result import describe_rise, find_rise

LINE_EVERY_SECONDS = 10.0
WARN_AFTER_STEPS = 20  # steps before the first warning about a rising loss


class TrainingDisplay(TrainerCallback):
    """A progress bar on a terminal; elsewhere, one line every `LINE_EVERY_SECONDS`.

    Tokens per second are summed over all devices since this start; memory is the peak of this process or its GPU.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=None, told="")
        self._last_line = 0.0
        self._begun = 0.0
        self._tokens_before = 0
        self._steps_before = 0
        self._losses: list[float] = []
        self._warned = False

    def tell(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, highlight=False)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar."""
        self._begun = time.monotonic()
        self._tokens_before = state.num_input_tokens_seen
        self._steps_before = state.global_step
        self._progress.update(self._bar, total=state.max_steps)
        self._progress.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the loss of the step."""
        if not logs or "loss" not in logs:
            return
        self._warn_of_rise(state.global_step, float(logs["loss"]))
        now = time.monotonic()
        seconds = max(now - self._begun, 1e-9)
        rate = (state.num_input_tokens_seen - self._tokens_before) / seconds
        told = f"loss {float(logs['loss']):.3f}  {rate:,.0f} tokens/s  {peak_memory() / GIB:.1f} GiB"
        self._progress.update(self._bar, completed=state.global_step, told=told)
        if not self._console.is_terminal and now - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = now
            left = (state.max_steps - state.global_step) * seconds / max(1, state.global_step - self._steps_before)
            self._console.print(f"step {state.global_step}/{state.max_steps}  {told}  left {format_seconds(left)}")

    def _warn_of_rise(self, step: int, loss: float) -> None:
        """Print one warning if the loss has risen, after at least `WARN_AFTER_STEPS` steps."""
        self._losses.append(loss)
        if self._warned or len(self._losses) < WARN_AFTER_STEPS:
            return
        if rise := find_rise(self._losses):
            self._warned = True
            self._console.print(f"step {step}: {describe_rise(*rise)}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the bar."""
        self._progress.stop()


def peak_memory() -> int:
    """Return the peak memory in bytes: allocated by tensors on the GPU, or resident in this process without a GPU."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
