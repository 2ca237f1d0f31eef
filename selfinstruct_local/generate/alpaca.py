"""Profile `alpaca`: one call gives several whole tasks.

After Stanford Alpaca (Taori et al. 2023): a few whole tasks are shown and the model goes on with more. Ours asks
for a handful at a time, lets one of the shown tasks come from the pool, and reads what came back tolerantly.
"""

from collections.abc import Sequence

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.engine.base import Sampling
from selfinstruct_local.generate.job import Draft, Job, Steps
from selfinstruct_local.generate.parse import parse_task_blocks
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.prompts import load_prompt
from selfinstruct_local.tasks import Task


class AlpacaProfile:
    """See the module."""

    name = "alpaca"
    demonstrations = 3
    shows_whole_tasks = True
    machine_made = 1

    def __init__(self, settings: DecidingSettings) -> None:
        self._wording = WORDINGS[settings.lang]
        self.prompts = (f"alpaca{self._wording.suffix}",)
        self._template = load_prompt(self.prompts[0])
        last = self.demonstrations + settings.tasks_per_prompt
        self._sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop=(self._wording.heading(last + 1),),
        )

    def steps(self, job: Job) -> Steps:
        """One request, whose completion holds the tasks."""
        shown = job.demonstrate(self.demonstrations, machine_made=self.machine_made, stage="tasks")
        (completion,) = yield [job.request("tasks", 0, self._prompt(shown), self._sampling)]
        drafts: list[Draft] = parse_task_blocks(completion)
        return drafts

    def _prompt(self, shown: Sequence[Task]) -> str:
        blocks = [self._block(number, task) for number, task in enumerate(shown, start=1)]
        return self._template.substitute(demonstrations="\n\n".join(blocks), next_number=self.demonstrations + 1)

    def _block(self, number: int, task: Task) -> str:
        words = self._wording
        fields = ((words.instruction, task.instruction), (words.input, task.input), (words.output, task.output))
        return "\n".join([words.heading(number), *(words.field(name, value) for name, value in fields)])
