"""Request the output of a task in a separate prompt, for profiles that request instruction and output separately."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace

from selfinstruct_local.engines.base import Completion, Request, Sampling
from selfinstruct_local.filters.labels import label_of
from selfinstruct_local.generate.job import Job, ParsedTask
from selfinstruct_local.generate.parsing.tasks import TRUNCATED, cut_short, presentable
from selfinstruct_local.generate.profiles.paragraph import PARAGRAPH, has_items, needs_lines
from selfinstruct_local.generate.settings import DecidingSettings
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.task import Instance, Task, as_question
from selfinstruct_local.templates.turns import Turn

NEEDS_LINES = "needs_lines"
INCONSISTENT_LABEL = "inconsistent_label"
# Stage of the request with the labels in reverse order.
REVERSED = "reversed"
# Presence penalty for one-paragraph answers in English: without it a small model with greedy decoding repeats itself up
# to the token limit. In a blind reading of the answers to 36 questions, 22 were rejected without it and 11 with it. It
# is not used for Chinese, because small vocabularies split one Chinese character into several tokens.
PRESENCE_PENALTY = 1.0
# Temperature of the answers after the first, which is greedy.
OTHERS_TEMPERATURE = 0.7


def answer_prompt(settings: DecidingSettings) -> str:
    """Return the name of the prompt template for the system turn before a task."""
    name = "short_answer" if settings.answers == "short" else "answer"
    return f"{name}{WORDINGS[settings.lang].suffix}"


class Answers:
    """Builds the requests for answers and selects one of the completions.

    With `answers_per_task` above 1 the first answer is greedy and the others are sampled. Among labels and numbers the
    most common answer is selected (self-consistency, Wang et al. 2023), among other texts the one with the highest mean
    log-probability. A task that names labels is answered once more with the labels in reverse order, because models
    prefer options by position (Zheng et al. 2024); it is rejected if the label changes.
    """

    def __init__(self, settings: DecidingSettings, *, chat: bool = True) -> None:
        """Load the settings; with `chat`, answers are requested in a conversation."""
        self._in_one_paragraph = settings.answers == "short"
        self._count = settings.answers_per_task
        self._words = WORDINGS[settings.lang]
        self._before: tuple[Turn, ...] = ()
        if chat:
            self._before = (Turn("system", settings.prompts.load(answer_prompt(settings)).substitute()),)
        self._sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            max_tokens=settings.max_tokens,
            presence_penalty=PRESENCE_PENALTY if self._in_one_paragraph and settings.lang == "en" else 0.0,
            regex=PARAGRAPH if self._in_one_paragraph else "",
        )

    def ask(self, job: Job, branch: int, task: Task, labels: Sequence[str] = ()) -> list[Request]:
        """Return the requests for the answers to a task.

        Args:
            job: job of the requests.
            branch: number of the task in the job.
            task: task with instruction and input.
            labels: labels that the answer is constrained to; empty for free text.
        """
        turns = [
            (*self._before, Turn("user", as_question(each.instruction, each.input)))
            for each in self.wordings(task, labels)
        ]
        return self.ask_with(job, branch, [("", each) for each in turns], labels)

    def wordings(self, task: Task, labels: Sequence[str]) -> list[Task]:
        """Return the task in the words of each request; of one with labels, the last names them in reverse order."""
        if not labels:
            return [task] * self._count
        last = f"{self._words.choose}{self._words.comma.join(reversed(labels))}"
        return [*[task] * self._count, task._replace(instruction=f"{task.instruction} {last}")]

    def ask_with(
        self,
        job: Job,
        branch: int,
        prompts: Sequence[tuple[str, tuple[Turn, ...]]],
        labels: Sequence[str],
        stop: tuple[str, ...] = (),
    ) -> list[Request]:
        """Return the requests of `ask` with the prompt and turns of each wording."""
        greedy = replace(self._sampling, stop=stop)
        if labels:
            space = "" if self._before else " "
            choice = tuple(f"{space}{label}" for label in labels)
            greedy = replace(greedy, choice=choice, regex="", presence_penalty=0.0)
        sampled = replace(greedy, temperature=OTHERS_TEMPERATURE)
        requests = [
            job.request("answer", branch * self._count + number, prompt, sampled if number else greedy, turns)
            for number, (prompt, turns) in enumerate(prompts[: self._count])
        ]
        return requests + [
            job.request(REVERSED, branch, prompt, greedy, turns) for prompt, turns in prompts[self._count :]
        ]

    def read(self, draft: ParsedTask, completions: Sequence[Completion], labels: Sequence[str] = ()) -> ParsedTask:
        """Return the parsed task with the selected answer, or rejected if there is none."""
        task = draft.task
        if labels:
            *completions, last = completions
            first, second = (label_of(each.text, labels) for each in (completions[0], last))
            if first != second:
                detail = f"{first or 'no label'}, but {second or 'no label'} with the labels in reverse order"
                return draft._replace(rule=INCONSISTENT_LABEL, detail=detail)
        whole = [each for each in completions if not cut_short(each)]
        if not whole:
            reason = completions[0].finish_reason.value
            return draft._replace(rule=TRUNCATED, detail=f"the answer was truncated ({reason})")
        answer, agreement = choose(whole, labels)
        measures = dict(task.measures or {})
        if answer.confidence is not None and not labels:  # not with labels: constrained decoding raises the probability
            measures["output_confidence"] = answer.confidence
        if agreement is not None and self._count > 1:
            measures["agreement"] = agreement
        instances = (Instance(task.input, answer.text.strip()),)
        return self.fit(presentable(ParsedTask(task._replace(instances=instances, measures=measures or None))))

    def fit(self, draft: ParsedTask) -> ParsedTask:
        """Return the parsed task, rejected if its answer must be one paragraph but needs lines or is a list."""
        if not self._in_one_paragraph or draft.rule:
            return draft
        if word := needs_lines(draft.task.instruction):
            return draft._replace(rule=NEEDS_LINES, detail=f"one paragraph is not enough for '{word}'")
        if any(has_items(each.output) for each in draft.task.instances):
            return draft._replace(rule=NEEDS_LINES, detail="the answer is a numbered list in one paragraph")
        return draft


def collect(asked: Sequence[Sequence[Request]]) -> Generator[list[Request], list[Completion], list[list[Completion]]]:
    """Yield the requests of all tasks at once; return the completions of each task."""
    completions = iter((yield [request for requests in asked for request in requests]))
    return [[next(completions) for _ in requests] for requests in asked]


def choose(completions: Sequence[Completion], labels: Sequence[str]) -> tuple[Completion, float | None]:
    """Return the selected answer and the fraction of answers that agree with it; None for free texts.

    Args:
        completions: complete answers, at least one.
        labels: labels that the task names.
    """
    values = [label_of(each.text, labels) if labels else _number(each.text) for each in completions]
    known = Counter(value for value in values if value is not None)
    if not known:
        return max(completions, key=lambda each: each.confidence if each.confidence is not None else 0.0), None
    value, count = known.most_common(1)[0]  # the first of equally common ones
    return completions[values.index(value)], count / len(completions)


def _number(text: str) -> str | None:
    """Return a purely numeric answer in canonical form, or None."""
    bare = text.strip().rstrip(".").replace(",", "")
    try:
        return repr(float(bare))
    except ValueError:
        return None
