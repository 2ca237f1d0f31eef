"""What the user wants prompts to ask for: topics, and a share of classification tasks. Drawn anew for each job.

The draws have random streams of their own, so a run without them draws all else as ever.
"""

from collections.abc import Sequence
from random import Random

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.generate.job import Job
from selfinstruct_local.generate.wording import Wording
from selfinstruct_local.kernels import rouge_l_matrix
from selfinstruct_local.language import TOKENIZERS
from selfinstruct_local.tasks import Task

# Tasks of the pool beside those that are shown, among which the rarest are sought.
RARE_AMONG = 16


class Steering:
    """The settings `topics`, `classification_share` and `favor_rare` at work."""

    def __init__(self, settings: DecidingSettings) -> None:
        self._topics = tuple(" ".join(topic.split()) for topic in settings.topics)
        self._share = settings.classification_share
        self._favor_rare = settings.favor_rare
        self._tokenizer = TOKENIZERS[settings.lang]

    def topic(self, job: Job) -> str:
        """What the tasks of a job are to be about; empty when that is left to the model."""
        return job.random("draw topic").choice(self._topics) if self._topics else ""

    def draw(self, stream: Random, pool: Sequence[Task], count: int) -> Sequence[Task]:
        """So many tasks of the pool: any, or with `favor_rare` of some that are drawn those least like the others."""
        if not self._favor_rare or count < 1:
            return stream.sample(pool, count)
        drawn = stream.sample(pool, min(len(pool), count + RARE_AMONG))
        instructions = [task.instruction for task in drawn]
        alike = rouge_l_matrix(instructions, instructions, threads=1, tokenizer=self._tokenizer).sum(axis=1)
        order = sorted(range(len(drawn)), key=lambda row: (float(alike[row]), row))
        return [drawn[row] for row in order[:count]]

    def wants_classification(self, job: Job) -> bool | None:
        """Whether a job asks for classification tasks or for others; None when that is left to the model."""
        return None if self._share is None else job.random("draw kind").random() < self._share

    def requests(self, job: Job, wording: Wording) -> list[str]:
        """The lines of a prompt that ask for it; none without these settings."""
        wants = self.wants_classification(job)
        topic = self.topic(job)
        lines = [wording.labels_wanted if wants else wording.labels_unwanted] if wants is not None else []
        return [*lines, wording.about + topic] if topic else lines

    def demonstrate(self, job: Job, count: int, *, machine_made: int, stage: str) -> Sequence[Task]:
        """As `Job.demonstrate`; seeds of the wanted kind alone where one is wanted, filled up when they are too few.

        Tasks of the pool are left out then: whether one is classification only the model has said.
        """
        wants = self.wants_classification(job)
        if wants is None:
            return job.demonstrate(count, machine_made=machine_made, stage=stage, draw=self.draw)
        stream = job.random(f"draw {stage} of a kind")
        same: list[Task] = []
        others: list[Task] = []
        for seed in job.seeds:
            (same if bool(seed.is_classification) == wants else others).append(seed)
        chosen = stream.sample(same, min(count, len(same)))
        chosen += stream.sample(others, count - len(chosen))
        stream.shuffle(chosen)
        job.shown.extend(chosen)
        return chosen
