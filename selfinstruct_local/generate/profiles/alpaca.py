"""Profile `alpaca`: several whole tasks per call.

Based on Stanford Alpaca (Taori et al. 2023): the model continues a list of few-shot examples. This profile requests a
few tasks per call, takes one of the examples from the pool, and parses completions tolerantly.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from selfinstruct_local.engines.base import Sampling
from selfinstruct_local.generate.job import Job, Steps
from selfinstruct_local.generate.parsing.json_tasks import parse_task_objects
from selfinstruct_local.generate.parsing.tasks import FIELDS, parse_task_blocks
from selfinstruct_local.generate.profiles.asking import array_schema, ask, object_schema, schema_text
from selfinstruct_local.generate.profiles.steering import Steering
from selfinstruct_local.generate.settings import DecidingSettings, PromptFormat
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.task import Task


class AlpacaProfile:
    """Profile that requests several whole tasks in one call."""

    name = "alpaca"
    summary = "whole tasks in one call, with few-shot examples of seeds and pool, parsed tolerantly"
    defects_kept: tuple[str, ...] = ()
    demonstrations = 3
    shows_whole_tasks = True
    machine_made = 1
    needs_model_files: frozenset[PromptFormat] = frozenset()
    unused = frozenset(
        {"answers", "answers_per_task", "instances_per_task", "min_confidence", "min_output_confidence", "subject"}
    )

    def __init__(self, settings: DecidingSettings) -> None:
        words = self._wording = WORDINGS[settings.lang]
        self._format = settings.prompt_format
        self._structured = settings.structured
        self._steering = Steering(settings)
        self._wanted = settings.tasks_per_prompt
        base = "alpaca_json" if self._structured else "alpaca"
        # A base model continues the list; a chat model needs a request. The JSON prompt has one for both.
        asks = ["alpaca_chat"] if self._format == "chat" and not self._structured else []
        self.prompts = tuple(f"{name}{words.suffix}" for name in (base, *asks))
        self._template, *self._asks = map(settings.prompts.load, self.prompts)
        schema = array_schema(object_schema(*FIELDS), least=self._wanted, most=self._wanted)
        self._sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            json_schema=schema_text(schema) if self._structured else "",
        )

    def steps(self, job: Job) -> Steps:
        """Yield one request; return the tasks in its completion."""
        shown = self._steering.demonstrate(job, self.demonstrations, machine_made=self.machine_made, stage="tasks")
        requests = self._steering.requests(job, self._wording)
        if self._structured:
            prompt = self._json_prompt(shown, requests)
            (completion,) = yield [ask(job, "tasks", 0, prompt, "", self._sampling, self._format)]
            return parse_task_objects(completion)
        words, first = self._wording, len(shown) + 1
        opening = f"{words.heading(first)}\n{words.mark(words.instruction)}"
        sampling = replace(self._sampling, stop=(words.heading(first + self._wanted),))
        (completion,) = yield [ask(job, "tasks", 0, self._prompt(shown, requests), opening, sampling, self._format)]
        return parse_task_blocks(completion)

    def _prompt(self, shown: Sequence[Task], requests: Sequence[str]) -> str:
        blocks = [self._block(number, task) for number, task in enumerate(shown, start=1)]
        first = len(shown) + 1
        last = len(shown) + self._wanted
        asks = [template.substitute(next_number=first, last_number=last) for template in self._asks]
        return self._template.substitute(demonstrations="\n\n".join([*blocks, *requests, *asks]), next_number=first)

    def _json_prompt(self, shown: Sequence[Task], requests: Sequence[str]) -> str:
        lines = [json.dumps(dict(zip(FIELDS, _texts(task), strict=True)), ensure_ascii=False) for task in shown]
        array = "[\n" + ",\n".join(lines) + "\n]"
        # The requested array begins on a new line, as the one of the few-shot examples does.
        return self._template.substitute(demonstrations="\n\n".join([array, *requests]), count=self._wanted) + "\n"

    def _block(self, number: int, task: Task) -> str:
        words = self._wording
        names = (words.instruction, words.input, words.output)
        lines = [words.field(name, value) for name, value in zip(names, _texts(task), strict=True)]
        return "\n".join([words.heading(number), *lines])


def _texts(task: Task) -> tuple[str, str, str]:
    return task.instruction, task.input, task.output
