"""Profile `self-instruct`: instructions first, then their kind, then a worked case.

After Self-Instruct (Wang et al. 2023): 8 instructions are shown, 2 of them machine-made, and the list goes on;
each new instruction is asked whether it is classification; classification tasks get their label before their
input, so that labels do not come out all the same, and the others their input first. With `instances_per_task` over 1,
several worked cases come in one completion, as published. The worked examples of
the later steps are drawn from the seeds, whose kind is known, once for the run: all prompts of a step begin alike, and
the engine's prefix cache serves that part.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.engine.base import Completion, Request, Sampling
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.generate.job import Draft, Job, Steps, screen
from selfinstruct_local.generate.parsing.cases import with_case, with_cases
from selfinstruct_local.generate.parsing.tasks import parse_numbered_instructions, parse_yes_no
from selfinstruct_local.generate.profiles.asking import array_schema, ask, object_schema, schema_text
from selfinstruct_local.generate.profiles.steering import Steering
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.tasks import Task

CLASSIFICATION_EXAMPLES = 8
INSTANCE_EXAMPLES = 4
MAX_INSTANCE_TOKENS = 350
# Enough for " Yes" and its like in any tokenizer; a choice ends by itself.
MAX_CHOICE_TOKENS = 16
# The presence penalty of the published program's third step, which keeps greedy decoding from looping.
INSTANCE_PRESENCE_PENALTY = 1.5


class SelfInstructProfile:
    """See the module. It serves one run."""

    name = "self-instruct"
    summary = "instructions, then the kind of each, then a worked case"
    defects_kept: tuple[str, ...] = ()
    demonstrations = 8
    shows_whole_tasks = False
    machine_made = 2
    needs_model_files = False
    unused = frozenset({"answers", "min_confidence", "min_output_confidence"})

    def __init__(self, settings: DecidingSettings) -> None:
        words = self._wording = WORDINGS[settings.lang]
        self._format = settings.prompt_format
        self._structured = settings.structured
        self._most_cases = settings.instances_per_task
        self._wanted = settings.tasks_per_prompt
        self._steering = Steering(settings)
        self._examples: dict[str, str] = {}
        form = ("_json" if self._structured else "") + ("_many" if self._most_cases > 1 else "")
        steps = ["instructions", "classification", f"input_first{form}", f"output_first{form}"]
        # A base model goes on by itself; in a chat, somebody has to ask for the rest of the list.
        steps += ["instructions_chat"] if self._format == "chat" else []
        self.prompts = tuple(f"self_instruct_{step}{words.suffix}" for step in steps)
        templates = [settings.prompts.load(name) for name in self.prompts]
        self._instructions, self._classification, self._input_first, self._output_first, *self._asks = templates
        self._rules = rule_set(settings.rules, settings.lang, settings.limits())
        last = self.demonstrations + self._wanted
        self._instruction_sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop=("\n\n", f"\n{last + 1}."),
        )
        if self._structured:
            self._yes_no_sampling = Sampling(
                temperature=0.0, top_p=1.0, max_tokens=MAX_CHOICE_TOKENS, choice=(f" {words.yes}", f" {words.no}")
            )
            # A penalty on what was written would fall on quotation marks and braces first.
            self._instance_sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=MAX_INSTANCE_TOKENS)
            return
        self._yes_no_sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=3, stop=("\n", words.mark(words.task)))
        ends = ["\n" + words.mark(words.task)]
        if self._most_cases > 1:
            ends.append("\n" + words.numbered_example(self._most_cases + 1))
        self._instance_sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            max_tokens=MAX_INSTANCE_TOKENS,
            presence_penalty=INSTANCE_PRESENCE_PENALTY,
            stop=tuple(ends),
        )

    def steps(self, job: Job) -> Steps:
        """Three rounds of requests: the list, the kind of each new instruction, a worked case of each."""
        steering = self._steering
        shown = steering.demonstrate(job, self.demonstrations, machine_made=self.machine_made, stage="instructions")
        prompt = self._list_prompt(shown, steering.requests(job, self._wording))
        opening = f"{self.demonstrations + 1}."
        (listing,) = yield [ask(job, "instructions", 0, prompt, opening, self._instruction_sampling, self._format)]
        drafts = job.screen_copies([screen(self._rules, draft) for draft in parse_numbered_instructions(listing)])
        # Branches are positions in the list, so that a request keeps its key whatever its neighbours do.
        good = [branch for branch, draft in enumerate(drafts) if not draft.rule]
        if not good:
            return drafts
        answers = yield [self._ask_kind(job, branch, drafts[branch].task) for branch in good]
        kinds = [parse_yes_no(answer) for answer in answers]
        cases = yield [
            self._ask_case(job, branch, drafts[branch].task, is_classification=kind)
            for branch, kind in zip(good, kinds, strict=True)
        ]
        for branch, kind, case in zip(good, kinds, cases, strict=True):
            drafts[branch] = self._with_cases(drafts[branch], case, is_classification=kind)
        return drafts

    def _with_cases(self, draft: Draft, completion: Completion, *, is_classification: bool) -> Draft:
        how = {"is_classification": is_classification, "structured": self._structured}
        if self._most_cases == 1:
            return with_case(draft, completion, **how)
        return with_cases(draft, completion, self._most_cases, **how)

    def _list_prompt(self, shown: Sequence[Task], requests: Sequence[str]) -> str:
        first = self.demonstrations + 1
        last = self.demonstrations + self._wanted
        items = "\n".join(f"{number}. {task.instruction}" for number, task in enumerate(shown, start=1))
        asks = [template.substitute(next_number=first, last_number=last) for template in self._asks]
        after = ["\n".join([*requests, *asks])] if requests or asks else []
        return self._instructions.substitute(demonstrations="\n\n".join([items, *after]), next_number=first)

    def _ask_kind(self, job: Job, branch: int, task: Task) -> Request:
        shown = self._once("kind", lambda: self._kind_examples(job))
        prompt = self._classification.substitute(demonstrations=shown, instruction=task.instruction)
        question = self._wording.kind_question
        return ask(job, "classification", branch, prompt, question, self._yes_no_sampling, self._format)

    def _ask_case(self, job: Job, branch: int, task: Task, *, is_classification: bool) -> Request:
        words = self._wording
        kind = "label" if is_classification else "output"
        shown = self._once(kind, lambda: self._case_examples(job, is_classification=is_classification))
        template = self._output_first if is_classification else self._input_first
        prompt = template.substitute(demonstrations=shown, instruction=task.instruction, most=self._most_cases)
        sampling = self._instance_sampling
        if self._structured:
            case = object_schema("label", "input") if is_classification else object_schema("input", "output")
            schema = case if self._most_cases == 1 else array_schema(case, least=1, most=self._most_cases)
            sampling = replace(sampling, json_schema=schema_text(schema))
            return ask(job, "instance", branch, f"{prompt}\n", "", sampling, self._format)
        opening = words.mark(words.label if is_classification else words.input)
        if self._most_cases > 1:
            opening = f"{words.numbered_example(1)}\n{opening}"
        return ask(job, "instance", branch, prompt, opening, sampling, self._format)

    def _once(self, name: str, make: Callable[[], str]) -> str:
        """The worked examples of a step, drawn at its first prompt: they are the same for all jobs of the run."""
        if name not in self._examples:
            self._examples[name] = make()
        return self._examples[name]

    def _kind_examples(self, job: Job) -> str:
        stream = job.run_random("draw classification")
        labelled = [seed for seed in job.seeds if seed.is_classification]
        others = [seed for seed in job.seeds if not seed.is_classification]
        half = CLASSIFICATION_EXAMPLES // 2
        shown = stream.sample(labelled, min(half, len(labelled)))
        shown += stream.sample(others, min(CLASSIFICATION_EXAMPLES - len(shown), len(others)))
        stream.shuffle(shown)
        words = self._wording
        blocks = [
            f"{words.field(words.task, seed.instruction)}\n"
            f"{words.kind_question} {words.yes if seed.is_classification else words.no}"
            for seed in shown
        ]
        return "\n\n".join(blocks)

    def _case_examples(self, job: Job, *, is_classification: bool) -> str:
        stream = job.run_random(f"draw instance {is_classification}")
        same_kind = [seed for seed in job.seeds if bool(seed.is_classification) == is_classification]
        shown = stream.sample(same_kind, min(INSTANCE_EXAMPLES, len(same_kind)))
        return "\n\n".join(self._case_example(seed, is_classification=is_classification) for seed in shown)

    def _case_example(self, seed: Task, *, is_classification: bool) -> str:
        words = self._wording
        lines = [words.field(words.task, seed.instruction)]
        if self._structured:
            output = {"label" if is_classification else "output": seed.output}
            case = output | {"input": seed.input} if is_classification else {"input": seed.input} | output
            return "\n".join([*lines, json.dumps(case if self._most_cases == 1 else [case], ensure_ascii=False)])
        if self._most_cases > 1:
            lines.append(words.numbered_example(1))
        if is_classification:
            lines += [words.field(words.label, seed.output), words.field(words.input, seed.input)]
        else:
            lines += [words.field(words.input, seed.input), words.field(words.output, seed.output)]
        return "\n".join(lines)
