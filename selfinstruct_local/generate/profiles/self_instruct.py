"""Profile `self-instruct`: the model writes a new task after few-shot examples, then its output in a separate prompt.

Based on Self-Instruct (Wang et al. 2023): an instruction, then its input, then its output. For chat models, seeds and
pool tasks are earlier turns of a conversation (instruction and input from the user, output from the assistant), and the
model writes the next user turn. A base model continues a list of the same tasks. The kind of the next task
(classification, with or without an input) is drawn so that the pool approaches the target shares; the few-shot examples
are of that kind, and the prompt requests it.

A task is classification if its instruction names a few labels and its output is one of them. The published program
asks the model instead. The embedded model, on which this was measured, distinguishes the kinds no better than chance.
"""

from collections.abc import Sequence
from dataclasses import replace

from selfinstruct_local.engines.base import Request, Sampling
from selfinstruct_local.filters.labels import named_labels, yes_no
from selfinstruct_local.filters.rules import EMPTY_OUTPUT
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.generate.job import Job, ParsedTask, Steps, passed, screen
from selfinstruct_local.generate.parsing.questions import (
    read_question,
    stands_alone,
    with_input,
    without_needless_input,
)
from selfinstruct_local.generate.profiles.answers import Answers, answer_prompt, collect
from selfinstruct_local.generate.profiles.copies import reject_answered, reject_copies, reject_labelled, reject_repeated
from selfinstruct_local.generate.profiles.steering import Kind, Steering, first_words
from selfinstruct_local.generate.settings import DecidingSettings, PromptFormat
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.task import Task, as_question
from selfinstruct_local.templates.turns import Role, Turn

# User turns are shorter than outputs; a longer one is usually incoherent.
MAX_QUESTION_TOKENS = 256
# Maximum temperature for inputs, lower than for instructions, which must be different each time.
INPUT_TEMPERATURE = 0.5
MISSING_INPUT = "missing_input"
NO_LABELS = "no_labels"


class SelfInstructProfile:
    """Profile that generates an instruction, its input and its output in separate requests."""

    name = "self-instruct"
    summary = "a new task after few-shot examples of seeds and pool, then its output in a separate prompt"
    defects_kept: tuple[str, ...] = ()
    demonstrations = 3
    shows_whole_tasks = True
    machine_made = 1
    # Chat needs the template of user turns, which the API of servers cannot request.
    needs_model_files: frozenset[PromptFormat] = frozenset({"chat"})
    unused = frozenset({"structured", "instances_per_task"})

    def __init__(self, settings: DecidingSettings) -> None:
        words = self._words = WORDINGS[settings.lang]
        self._lang = settings.lang
        self._chat = settings.prompt_format == "chat"
        main = "self_instruct_user" if self._chat else "self_instruct"
        self.prompts = (f"{main}{words.suffix}", *([answer_prompt(settings)] if self._chat else []))
        self._template = settings.prompts.load(self.prompts[0])
        self._subject = words.same_subject if settings.subject == "seeds" else words.other_subject
        self._steering = Steering(settings)
        self._answers = Answers(settings, chat=self._chat)
        # Without an opening, the smallest models write statements and repeat a few questions.
        self._begun = settings.answers == "short"
        rules = rule_set(settings.rules, settings.lang, settings.thresholds())
        # A question is a task that still lacks its output, and at first its input, so these rules do not apply yet.
        self._question_rules = tuple(rule for rule in rules if rule.name != EMPTY_OUTPUT)
        self._instruction_rules = tuple(rule for rule in self._question_rules if rule.name != MISSING_INPUT)
        self._branches = settings.tasks_per_prompt
        self._turn = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=min(MAX_QUESTION_TOKENS, settings.max_tokens),
            stop=() if self._chat else (f"\n{words.mark(words.output)}",),
        )
        self._line = replace(self._turn, stop=("\n",))
        self._input = replace(self._turn, temperature=min(settings.temperature, INPUT_TEMPERATURE))

    def steps(self, job: Job) -> Steps:
        """Yield the requests for instructions, then for their inputs, then for the outputs of the valid ones."""
        kind = self._steering.kind(job)
        shown = self._steering.demonstrate(job, self.demonstrations, machine_made=self.machine_made, stage="tasks")
        prompt, turns = self._prompt(shown, self._steering.requests(job, self._words))
        drafts = yield from self._instructions(job, kind, shown, prompt, turns)
        if kind.classification:
            drafts = [self._require_labels(draft) for draft in drafts]
            bare = [branch for branch in passed(drafts) if not self._has_its_text(drafts[branch].task)]
            if bare:
                inputs = yield [self._ask_input(job, branch, drafts[branch].task, prompt, turns) for branch in bare]
                for branch, completion in zip(bare, inputs, strict=True):
                    drafts[branch] = with_input(drafts[branch], completion)
        drafts = [
            screen(self._question_rules, reject_answered(reject_copies(draft, shown, self._lang))) for draft in drafts
        ]
        if not (good := passed(drafts)):
            return drafts
        labels = {branch: self._labels(drafts[branch].task, classification=kind.classification) for branch in good}
        asked = [self._ask(job, branch, drafts[branch].task, labels[branch], prompt) for branch in good]
        answers = yield from collect(asked)
        for branch, completions in zip(good, answers, strict=True):
            answered = self._answers.read(drafts[branch], completions, labels[branch])
            task = answered.task._replace(is_classification=bool(labels[branch]))
            drafts[branch] = reject_labelled(reject_repeated(answered._replace(task=task), self._lang), labels[branch])
        return drafts

    def _instructions(self, job: Job, kind: Kind, shown: Sequence[Task], prompt: str, turns: tuple[Turn, ...]) -> Steps:
        """Yield the requests for instructions; return the parsed tasks, with inputs except for classification."""
        openings = [self._opening(job, branch, kind, shown) for branch in range(self._branches)]
        sampling = self._line if kind.classification or kind.has_input is False else self._turn
        role: Role = "user" if turns else "assistant"
        completions = yield [
            job.request("question", branch, begin(prompt, opening), sampling, turns, role)
            for branch, opening in enumerate(openings)
        ]
        read = [
            without_needless_input(read_question(each, opening), self._lang)
            for each, opening in zip(completions, openings, strict=True)
        ]
        return job.screen_copies([self._answers.fit(screen(self._instruction_rules, draft)) for draft in read])

    def _labels(self, task: Task, *, classification: bool | None) -> tuple[str, ...]:
        """Return the labels that the output is constrained to; () for free text.

        Yes and no count only if classification is requested: other questions may have a longer answer.
        """
        named = named_labels(task.instruction, self._lang)
        return named or (yes_no(task.instruction, self._lang) if classification else ())

    def _has_its_text(self, task: Task) -> bool:
        return stands_alone(task.instruction, self._lang, classification=True)

    def _require_labels(self, draft: ParsedTask) -> ParsedTask:
        """Return the parsed task, rejected if its instruction names no labels, before an input is requested."""
        if draft.rule or self._labels(draft.task, classification=True):
            return draft
        return draft._replace(
            rule=NO_LABELS, detail="classification was requested, but the instruction names no labels"
        )

    def _opening(self, job: Job, branch: int, kind: Kind, shown: Sequence[Task]) -> str:
        """Return the words that an instruction begins with: the first words of a seed of the kind that is not shown."""
        if not self._begun:
            return ""
        seeds = [seed for seed in job.seeds if kind.fits(seed) and seed not in shown] or job.seeds
        return first_words(job.random("opening", branch).choice(seeds), self._lang)

    def _ask_input(self, job: Job, branch: int, task: Task, prompt: str, turns: tuple[Turn, ...]) -> Request:
        """Return the request for the input of an instruction, which continues the same prompt."""
        if turns:
            return job.request("input", branch, f"{task.instruction}\n\n", self._input, turns, "user")
        lines = f"{begin(prompt, task.instruction)}\n{self._words.mark(self._words.input)}"
        return job.request("input", branch, lines, self._input)

    def _prompt(self, shown: Sequence[Task], requests: Sequence[str]) -> tuple[str, tuple[Turn, ...]]:
        """Return the prompt and turns after which the model writes a task; for a base model there are no turns."""
        if not self._chat:
            blocks = [self._block(number, task) for number, task in enumerate(shown, start=1)]
            demonstrations = "\n\n".join([*blocks, *requests])
            return self._template.substitute(
                subject=self._subject, demonstrations=demonstrations, next_number=len(shown) + 1
            ), ()
        turns = [Turn("system", " ".join([self._template.substitute(subject=self._subject), *requests]))]
        for task in shown:
            turns += [Turn("user", as_question(task.instruction, task.input)), Turn("assistant", task.output)]
        return "", tuple(turns)

    def _block(self, number: int, task: Task) -> str:
        words = self._words
        fields = ((words.instruction, task.instruction), (words.input, task.input), (words.output, task.output))
        return "\n".join([words.heading(number), *(words.field(name, value) for name, value in fields)])

    def _ask(self, job: Job, branch: int, task: Task, labels: Sequence[str], prompt: str) -> list[Request]:
        if self._chat:
            return self._answers.ask(job, branch, task, labels)
        words = self._words
        prompts = [
            "\n".join([begin(prompt, each.instruction), words.field(words.input, each.input), words.mark(words.output)])
            for each in self._answers.wordings(task, labels)
        ]
        return self._answers.ask_with(
            job, branch, [(each, ()) for each in prompts], labels, stop=(f"\n### {words.task}",)
        )


def begin(prompt: str, opening: str) -> str:
    """Return a prompt with the beginning of an instruction appended."""
    return f"{prompt} {opening}" if prompt and opening else f"{prompt}{opening}"
