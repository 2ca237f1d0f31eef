"""Profiles `alpaca-2023` and `self-instruct-2022`: exact reimplementations of the published programs.

The programs are Stanford Alpaca's generate_instruction.py (Taori et al. 2023), and Self-Instruct's
bootstrap_instructions.py, identify_clf_or_not.py, generate_instances.py and prepare_for_finetuning.py (Wang et al.
2023). The same completions lead to the same accepted tasks, including the defects listed in `defects_kept`; profiles
`alpaca` and `self-instruct` fix these. The prompts have the published structure with different wording, and their
examples come from the seeds of the run.
"""

from collections.abc import Callable, Sequence

from selfinstruct_local.engines.base import Request, Sampling
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.generate.job import Job, ParsedTask, Steps, passed, screen
from selfinstruct_local.generate.parsing.published import (
    BLOCK_MARK,
    NO_INPUT,
    parse_published_blocks,
    parse_published_list,
    parse_published_yes_no,
)
from selfinstruct_local.generate.parsing.tasks import cut_short
from selfinstruct_local.generate.settings import DecidingSettings, ProfileName, PromptFormat
from selfinstruct_local.io.published_instances import LABEL_MARK, parse_published_instances
from selfinstruct_local.task import Task

# Settings that the published programs do not have.
UNPUBLISHED = frozenset(
    {
        "prompt_format",
        "structured",
        "answers",
        "answers_per_task",
        "subject",
        "topics",
        "classification_share",
        "input_share",
        "favor_rare",
        "min_confidence",
        "min_output_confidence",
        "judge",
    }
)

CLASSIFICATION_EXAMPLES = (12, 19)  # classification tasks, other tasks
OUTPUT_FIRST_EXAMPLES = 16
INPUT_FIRST_EXAMPLES = 11
# Instances per example. The three or four of most classification seeds would fill LLaMA-7B's context.
CASES_SHOWN = 2
INSTRUCTION_PRESENCE_PENALTY = 2.0
INSTANCE_PRESENCE_PENALTY = 1.5
MAX_LABELLED_INSTANCE_TOKENS = 300
MAX_INSTANCE_TOKENS = 350


class Alpaca2023Profile:
    """Profile that requests whole tasks in one call, as numbered fields between `###`.

    The few-shot examples are only seeds. The published program sends five prompts per request; here each is a separate
    request, which changes no decision.
    """

    name: ProfileName = "alpaca-2023"
    summary = "Stanford Alpaca's program of 2023: whole tasks in one call, with only seeds as few-shot examples"
    defects_kept: tuple[str, ...] = (
        "the stop string '20.' cuts outputs such as 'in 2020.', and the truncated task is kept",
        "'###' in an output splits its task and shifts the numbers of all later ones",
        "a block with a wrong number before a field is rejected",
        "fields are identified by their order, not by their names",
        "an empty output is accepted",
    )
    demonstrations = 3
    machine_made = 0
    # The ID of the end-of-text token, which is never sampled.
    needs_model_files: frozenset[PromptFormat] = frozenset({"completion"})
    unused = UNPUBLISHED | {"instances_per_task"}
    shows_whole_tasks = True
    prompts: tuple[str, ...] = ("alpaca_2023",)

    def __init__(self, settings: DecidingSettings) -> None:
        self._template = settings.prompts.load(self.prompts[0])
        self._last = last = self.demonstrations + settings.tasks_per_prompt
        self._sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop=(f"\n{last}", f"{last}."),
            forbid_end=True,
        )

    def steps(self, job: Job) -> Steps:
        """Yield one request; return the tasks in its completion."""
        shown = job.demonstrate(self.demonstrations, machine_made=self.machine_made, stage="tasks")
        (completion,) = yield [job.request("tasks", 0, self._prompt(shown), self._sampling)]
        return parse_published_blocks(completion, len(shown) + 1)

    def _prompt(self, shown: Sequence[Task]) -> str:
        """Return the prompt; the requested number of tasks includes the few-shot examples, as published."""
        blocks = [
            f"{BLOCK_MARK}\n{number}. Instruction: {_as_shown(task)}\n"
            f"{number}. Input:\n{task.input or NO_INPUT}\n{number}. Output:\n{task.output}"
            for number, task in enumerate(shown, start=1)
        ]
        return self._template.substitute(count=self._last, demonstrations="\n".join(blocks), next_number=len(shown) + 1)


class SelfInstruct2022Profile:
    """Profile that requests instructions, then whether each is classification, then its instances.

    Only rules and novelty decide whether an instruction joins the pool, as published. If none of its instances is
    complete, it stays in the pool as a bare instruction: new ones are compared with it and it is used as a few-shot
    example, but it is never exported.

    The published steps are programs that run one after the other on files, so only accepted instructions got requests
    for their type and instances. Here a job sends these requests before its decision, once the rules have passed, so
    those for instructions that turn out to be near copies are wasted.

    A published request had five tasks and a limit of 300 tokens if one of them was classification, else 350. Here a
    request has one task, and its type determines the limit.

    The few-shot examples for types and instances are fixed in the published program. Here they are drawn from the seeds
    once per run, fewer if there are not enough seeds of a type. So custom seeds work without any classification task
    and without types (which count as not classification).
    """

    name: ProfileName = "self-instruct-2022"
    summary = "Self-Instruct's programs of 2022: instructions, then their types, then their instances"
    defects_kept: tuple[str, ...] = (
        "capital letters within an instruction become lowercase, including those of names",
        "a list that reaches the token limit is rejected as a whole",
        "the stop string '16.' cuts instructions such as 'what happened in 1916. ...'",
        "all answers except for Yes, yes and YES, such as 'Yes.', count as not classification",
        "an instruction without a complete instance joins the pool",
    )
    demonstrations = 8
    machine_made = 2
    needs_model_files: frozenset[PromptFormat] = frozenset()
    unused = UNPUBLISHED
    shows_whole_tasks = False
    prompts: tuple[str, ...] = tuple(
        f"self_instruct_2022_{step}" for step in ("instructions", "classification", "input_first", "output_first")
    )

    def __init__(self, settings: DecidingSettings) -> None:
        templates = map(settings.prompts.load, self.prompts)
        self._instructions, self._classification, self._input_first, self._output_first = templates
        self._examples: dict[str, str] = {}
        self._rules = rule_set(settings.rules)
        self._most_cases = settings.instances_per_task
        after = self.demonstrations + settings.tasks_per_prompt + 1
        self._instruction_sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            presence_penalty=INSTRUCTION_PRESENCE_PENALTY,
            stop=("\n\n", f"\n{after}", f"{after}.", f"{after} ."),
        )
        self._yes_no_sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=3, stop=("\n", "Task"))

    def steps(self, job: Job) -> Steps:
        """Yield requests for a list of instructions, then for the type and instances of those that pass the rules."""
        shown = job.demonstrate(self.demonstrations, machine_made=self.machine_made, stage="instructions")
        (listing,) = yield [job.request("instructions", 0, self._list_prompt(shown), self._instruction_sampling)]
        drafts = [screen(self._rules, draft) for draft in parse_published_list(listing)]
        good = passed(drafts)
        if not good:
            return drafts
        answers = yield [self._ask_kind(job, branch, drafts[branch].task) for branch in good]
        kinds = [parse_published_yes_no(answer) for answer in answers]
        completions = yield [
            self._ask_cases(job, branch, drafts[branch].task, is_classification=kind)
            for branch, kind in zip(good, kinds, strict=True)
        ]
        for branch, kind, completion in zip(good, kinds, completions, strict=True):
            cases = parse_published_instances(
                completion.text, is_classification=kind, most=self._most_cases, torn=cut_short(completion)
            )
            drafts[branch] = ParsedTask(drafts[branch].task._replace(instances=cases, is_classification=kind))
        return drafts

    def _list_prompt(self, shown: Sequence[Task]) -> str:
        lines = [f"{number}. {_as_shown(task)}" for number, task in enumerate(shown, start=1)]
        return self._instructions.substitute(demonstrations="\n".join(lines), next_number=len(shown) + 1)

    def _ask_kind(self, job: Job, branch: int, task: Task) -> Request:
        shown = self._once("kind", lambda: _kind_examples(job))
        prompt = self._classification.substitute(demonstrations=shown, instruction=task.instruction)
        return job.request("classification", branch, prompt, self._yes_no_sampling)

    def _ask_cases(self, job: Job, branch: int, task: Task, *, is_classification: bool) -> Request:
        name = "output first" if is_classification else "input first"
        shown = self._once(name, lambda: _case_examples(job, name, is_classification=is_classification))
        template = self._output_first if is_classification else self._input_first
        # The line break is part of the prompt; loading a template strips the last one.
        prompt = template.substitute(demonstrations=shown, instruction=task.instruction) + "\n"
        sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            max_tokens=MAX_LABELLED_INSTANCE_TOKENS if is_classification else MAX_INSTANCE_TOKENS,
            presence_penalty=INSTANCE_PRESENCE_PENALTY,
            stop=(f"Example {self._most_cases + 1}", "Task:"),
        )
        return job.request("instance", branch, prompt, sampling)

    def _once(self, name: str, make: Callable[[], str]) -> str:
        """Return the few-shot examples of a step, which are drawn once and are the same for all jobs of the run."""
        if name not in self._examples:
            self._examples[name] = make()
        return self._examples[name]


def _as_shown(task: Task) -> str:
    """Return the instruction on one line, without trailing colons."""
    return " ".join(task.instruction.split()).rstrip(":")


def _of_kind(seeds: Sequence[Task], *, is_classification: bool) -> list[Task]:
    return [seed for seed in seeds if bool(seed.is_classification) == is_classification]


def _kind_examples(job: Job) -> str:
    stream = job.run_random("draw classification")
    shown = []
    for kind, count in zip((True, False), CLASSIFICATION_EXAMPLES, strict=True):
        known = _of_kind(job.seeds, is_classification=kind)
        shown += stream.sample(known, min(count, len(known)))
    stream.shuffle(shown)
    return "\n\n".join(
        f"Task: {seed.instruction}\nIs it classification? {'Yes' if seed.is_classification else 'No'}" for seed in shown
    )


def _case_examples(job: Job, name: str, *, is_classification: bool) -> str:
    stream = job.run_random(f"draw {name}")
    known = _of_kind(job.seeds, is_classification=is_classification)
    count = OUTPUT_FIRST_EXAMPLES if is_classification else INPUT_FIRST_EXAMPLES
    show = _labelled_lines if is_classification else _case_lines
    shown = stream.sample(known, min(count, len(known)))
    return "\n\n".join("\n".join([f"Task: {seed.instruction}", *show(seed)]) for seed in shown)


def _labelled_lines(seed: Task) -> list[str]:
    # No field name before the input, because the parser takes everything after the label as the input.
    return [f"{LABEL_MARK} {case.output}\n{case.input}".rstrip() for case in seed.instances[:CASES_SHOWN]]


def _case_lines(seed: Task) -> list[str]:
    if not seed.input:
        return [f"Output: {seed.output}"]
    return [
        f"Example {number}\nInput: {case.input}\nOutput: {case.output}"
        for number, case in enumerate(seed.instances[:CASES_SHOWN], start=1)
    ]
