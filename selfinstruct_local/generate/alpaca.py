"""Profile `alpaca`: one call gives several whole tasks.

After Stanford Alpaca (Taori et al. 2023): a few whole tasks are shown and the model goes on with more. Ours asks
for a handful at a time, lets one of the shown tasks come from the pool, and reads what came back tolerantly.
"""

from collections.abc import Sequence

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.engine.base import Sampling
from selfinstruct_local.generate.job import Draft, Job, Steps
from selfinstruct_local.generate.parse import parse_task_blocks
from selfinstruct_local.prompts import load_prompt
from selfinstruct_local.tasks import Task


class AlpacaProfile:
    """See the module."""

    name = "alpaca"
    demonstrations = 3
    shows_whole_tasks = True
    machine_made = 1
    prompts = ("alpaca",)

    def __init__(self, settings: DecidingSettings) -> None:
        self._template = load_prompt("alpaca")
        last = self.demonstrations + settings.tasks_per_prompt
        self._sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop=(f"### Task {last + 1}",),
        )

    def steps(self, job: Job) -> Steps:
        """One request, whose completion holds the tasks."""
        shown = job.demonstrate(self.demonstrations, machine_made=self.machine_made, stage="tasks")
        (completion,) = yield [job.request("tasks", 0, self._prompt(shown), self._sampling)]
        drafts: list[Draft] = parse_task_blocks(completion)
        return drafts

    def _prompt(self, shown: Sequence[Task]) -> str:
        blocks = [
            f"### Task {number}\nInstruction: {task.instruction}\nInput: {task.input or 'none'}\nOutput: {task.output}"
            for number, task in enumerate(shown, start=1)
        ]
        return self._template.substitute(demonstrations="\n\n".join(blocks), next_number=self.demonstrations + 1)
