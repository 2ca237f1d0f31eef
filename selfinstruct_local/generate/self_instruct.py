"""Profile `self-instruct`: instructions first, then their kind, then a worked case.

After Self-Instruct (Wang et al. 2023): 8 instructions are shown, 2 of them machine-made, and the list goes on;
each new instruction is asked whether it is classification; classification tasks get their label before their
input, so that labels do not come out all the same, and the others their input first. The worked examples of
the later steps are drawn from the seeds, whose kind is known, once for the run: all prompts of a step begin alike, and
the engine's prefix cache serves that part.
"""

from collections.abc import Callable, Sequence

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.engine.base import Completion, Request, Sampling
from selfinstruct_local.filter.rules import apply_rules
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.generate.job import Draft, Job, Steps
from selfinstruct_local.generate.parse import (
    MALFORMED,
    clean_input,
    parse_numbered_instructions,
    parse_worked_case,
    parse_yes_no,
    with_instance,
)
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.prompts import load_prompt
from selfinstruct_local.tasks import Instance, Task

CLASSIFICATION_EXAMPLES = 8
INSTANCE_EXAMPLES = 4
MAX_INSTANCE_TOKENS = 350
# The presence penalty of the published program's third step, which keeps greedy decoding from looping.
INSTANCE_PRESENCE_PENALTY = 1.5


class SelfInstructProfile:
    """See the module. It serves one run."""

    name = "self-instruct"
    demonstrations = 8
    shows_whole_tasks = False
    machine_made = 2

    def __init__(self, settings: DecidingSettings) -> None:
        words = self._wording = WORDINGS[settings.lang]
        self._examples: dict[str, str] = {}
        steps = ("instructions", "classification", "input_first", "output_first")
        self.prompts = tuple(f"self_instruct_{step}{words.suffix}" for step in steps)
        self._instructions, self._classification, self._input_first, self._output_first = map(load_prompt, self.prompts)
        self._rules = rule_set(settings.rules, settings.lang)
        last = self.demonstrations + settings.tasks_per_prompt
        self._instruction_sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop=("\n\n", f"\n{last + 1}."),
        )
        self._yes_no_sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=3, stop=("\n", words.mark(words.task)))
        self._instance_sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            max_tokens=MAX_INSTANCE_TOKENS,
            presence_penalty=INSTANCE_PRESENCE_PENALTY,
            stop=("\n" + words.mark(words.task),),
        )

    def steps(self, job: Job) -> Steps:
        """Three rounds of requests: the list, the kind of each new instruction, a worked case of each."""
        shown = job.demonstrate(self.demonstrations, machine_made=self.machine_made, stage="instructions")
        prompt = self._list_prompt(shown)
        (listing,) = yield [job.request("instructions", 0, prompt, self._instruction_sampling)]
        drafts = [self._screen(draft) for draft in parse_numbered_instructions(listing)]
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
            drafts[branch] = _with_case(drafts[branch], case, is_classification=kind)
        return drafts

    def _screen(self, draft: Draft) -> Draft:
        """Applies the rules to the bare instruction, before tokens are spent on its worked case."""
        if draft.rule:
            return draft
        verdict = apply_rules(self._rules, draft.task)
        return draft if verdict.keep else draft._replace(rule=verdict.rule, detail=verdict.detail)

    def _list_prompt(self, shown: Sequence[Task]) -> str:
        lines = [f"{number}. {task.instruction}" for number, task in enumerate(shown, start=1)]
        return self._instructions.substitute(demonstrations="\n".join(lines), next_number=self.demonstrations + 1)

    def _ask_kind(self, job: Job, branch: int, task: Task) -> Request:
        shown = self._once("kind", lambda: self._kind_examples(job))
        prompt = self._classification.substitute(demonstrations=shown, instruction=task.instruction)
        return job.request("classification", branch, prompt, self._yes_no_sampling)

    def _ask_case(self, job: Job, branch: int, task: Task, *, is_classification: bool) -> Request:
        kind = "label" if is_classification else "output"
        shown = self._once(kind, lambda: self._case_examples(job, is_classification=is_classification))
        template = self._output_first if is_classification else self._input_first
        prompt = template.substitute(demonstrations=shown, instruction=task.instruction)
        return job.request("instance", branch, prompt, self._instance_sampling)

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
        words = self._wording
        blocks = []
        for each in shown:
            fields = [(words.task, each.instruction)]
            if is_classification:
                fields += [(words.label, each.output), (words.input, each.input)]
            else:
                fields += [(words.input, each.input), (words.output, each.output)]
            blocks.append("\n".join(words.field(name, value) for name, value in fields))
        return "\n\n".join(blocks)


def _with_case(draft: Draft, completion: Completion, *, is_classification: bool) -> Draft:
    case = parse_worked_case(completion, "input" if is_classification else "output")
    if case is None:
        return draft._replace(rule=MALFORMED, detail=f"no worked case ({completion.finish_reason.value})")
    first, second = case
    instance = Instance(clean_input(second), first) if is_classification else Instance(clean_input(first), second)
    return Draft(with_instance(draft.task, instance, is_classification=is_classification))
