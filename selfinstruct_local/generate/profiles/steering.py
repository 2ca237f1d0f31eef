"""Steer what prompts request: a topic, classification tasks or others, with or without input.

Each setting has its own random stream, so the other draws of a run are the same with and without these settings.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from selfinstruct_local.generate.field_words import field_words
from selfinstruct_local.generate.job import Job
from selfinstruct_local.generate.settings import DecidingSettings
from selfinstruct_local.generate.wording import Wording
from selfinstruct_local.kernels import rouge_l_matrix
from selfinstruct_local.languages.base import TOKENIZERS, Language
from selfinstruct_local.task import Task

# Pool tasks drawn in addition to the wanted examples, from which the rarest or those of a kind are selected.
DRAWN_AMONG = 16
# Number of last pool tasks whose shares steer the next draws, and weight of the target shares, in tasks.
RECENT = 32
PRIOR = 4
MAX_BOOST = 2
# Steps between the numbers of neighboring jobs, modulo 1, so that a few consecutive jobs already have nearly the target
# shares: the additive recurrence R2 (Roberts 2018), with inverse powers of the plastic number.
STEPS = (0.7548776662466927, 0.5698402909980532)


class Kind(NamedTuple):
    """A kind of task; None leaves a property to the model.

    Attributes:
        classification: whether the output is one of a few labels.
        has_input: whether the task has an input.
    """

    classification: bool | None = None
    has_input: bool | None = None

    def fits(self, task: Task) -> bool:
        """Return whether a task is of this kind; an unknown `is_classification` counts as False."""
        return (self.classification is None or self.classification == bool(task.is_classification)) and (
            self.has_input is None or self.has_input == bool(task.input)
        )


ANY = Kind()
# First words of an instruction that another one begins with: one word is too little for a small model, and with more it
# copies the rest.
OPENING_WORDS = 2
OPENING_CHARACTERS = 4  # the same in Chinese, which has no spaces


def first_words(task: Task, lang: Language) -> str:
    """Return the first words of an instruction."""
    if lang == "zh":
        return task.instruction[:OPENING_CHARACTERS]
    return " ".join(task.instruction.split()[:OPENING_WORDS])


class Steering:
    """Draws for jobs according to the settings `topics`, `classification_share`, `input_share` and `favor_rare`."""

    def __init__(self, settings: DecidingSettings) -> None:
        self._keeps_field = settings.subject == "seeds" and settings.lang == "en"
        self._field: list[str] | None = None  # words of the seeds, computed with the first job
        self._topics = tuple(" ".join(topic.split()) for topic in settings.topics)
        self._classification_share = settings.classification_share
        self._input_share = settings.input_share
        self._favor_rare = settings.favor_rare
        self._tokenizer = TOKENIZERS[settings.lang]
        self._last: tuple[Job | None, Kind] = (None, ANY)  # the last job and its kind

    def topic(self, job: Job) -> str:
        """Return the topic for the tasks of a job; "" leaves it to the model."""
        return job.random("draw topic").choice(self._topics) if self._topics else ""

    def kind(self, job: Job) -> Kind:
        """Return the kind of task that a job requests, drawn so that the pool approaches the target shares.

        Whether a classification task has an input is left to the model.
        """
        if self._last[0] is not job:
            self._last = (job, self._draw_kind(job))
        return self._last[1]

    def _draw_kind(self, job: Job) -> Kind:
        if self._classification_share is None and self._input_share is None:
            return ANY
        recent = job.generated[max(0, len(job.generated) - RECENT) :]
        starts = job.run_random("draw kind")
        first, second = ((starts.random() + job.number * step) % 1 for step in STEPS)
        wants = _draw(first, self._classification_share, [bool(task.is_classification) for task in recent])
        if wants:
            return Kind(classification=True)
        others = [bool(task.input) for task in recent if not task.is_classification]
        has_input = _draw(second, self._input_share, others)
        # A task with an input may also have labels.
        return Kind(None if has_input else wants, has_input)

    def draw(self, stream: Random, pool: Sequence[Task], count: int) -> Sequence[Task]:
        """Return `count` random pool tasks; with `favor_rare` those of a larger sample least similar to the others.

        Args:
            stream: random number generator.
            pool: pool to draw from.
            count: number of tasks, at most `len(pool)`.
        """
        if not self._favor_rare or count < 1:
            return stream.sample(pool, count)
        drawn = stream.sample(pool, min(len(pool), count + DRAWN_AMONG))
        instructions = [task.instruction for task in drawn]
        alike = rouge_l_matrix(instructions, instructions, threads=1, tokenizer=self._tokenizer).sum(axis=1)
        order = sorted(range(len(drawn)), key=lambda row: (float(alike[row]), row))
        return [drawn[row] for row in order[:count]]

    def requests(self, job: Job, wording: Wording) -> list[str]:
        """Return the prompt lines that request the kind and the topic; empty without these settings."""
        kind = self.kind(job)
        wanted = [
            (kind.classification, wording.labels_wanted, wording.labels_unwanted),
            (kind.has_input, wording.inputs_wanted, wording.inputs_unwanted),
        ]
        lines = [yes if wants else no for wants, yes, no in wanted if wants is not None]
        if topic := self.topic(job):
            lines.append(wording.about + topic)
        elif self._keeps_field:
            if self._field is None:
                self._field = field_words(job.seeds)
            lines += [wording.field_of + wording.comma.join(self._field)] if self._field else []
        return lines

    def demonstrate(self, job: Job, count: int, *, machine_made: int, stage: str) -> Sequence[Task]:
        """Return the few-shot examples of a prompt, as `Job.demonstrate` does, but of the kind that the job requests.

        If there are too few tasks of the kind, other seeds fill up.
        """
        kind = self.kind(job)
        if kind == ANY:
            return job.demonstrate(count, machine_made=machine_made, stage=stage, draw=self.draw)
        stream = job.random(f"draw {stage} of a kind")
        drawn = self.draw(stream, job.generated, min(len(job.generated), machine_made and DRAWN_AMONG))
        chosen = [task for task in drawn if kind.fits(task)][:machine_made]
        seeds = sorted(stream.sample(job.seeds, len(job.seeds)), key=lambda seed: not kind.fits(seed))
        chosen += seeds[: count - len(chosen)]
        stream.shuffle(chosen)
        job.shown.extend(chosen)
        return chosen


def _draw(number: float, share: float | None, recent: Sequence[bool]) -> bool | None:
    """Return whether the next task should have a property; None without a target share.

    The probability is the target share times the ratio of target to recent share, at most `MAX_BOOST` times the target
    share, so a kind that the model cannot write stays missing from the pool.

    Args:
        number: number in [0, 1), uniform over jobs.
        share: target share of the property in the pool.
        recent: whether each recent task has the property.
    """
    if share is None:
        return None
    expected = PRIOR * share
    observed = (sum(recent) + expected) / (len(recent) + PRIOR)
    return number < (min(share * share / observed, MAX_BOOST * share) if observed else 0.0)
