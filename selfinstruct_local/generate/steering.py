"""What the user wants prompts to ask for: topics, and a share of classification tasks. Drawn anew for each job.

The draws have random streams of their own, so a run without them draws all else as ever.
"""

from collections.abc import Sequence

from selfinstruct_local.config import DecidingSettings
from selfinstruct_local.generate.job import Job
from selfinstruct_local.generate.wording import Wording
from selfinstruct_local.tasks import Task


class Steering:
    """The settings `topics` and `classification_share` at work."""

    def __init__(self, settings: DecidingSettings) -> None:
        self._topics = tuple(" ".join(topic.split()) for topic in settings.topics)
        self._share = settings.classification_share

    def topic(self, job: Job) -> str:
        """What the tasks of a job are to be about; empty when that is left to the model."""
        return job.random("draw topic").choice(self._topics) if self._topics else ""

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
            return job.demonstrate(count, machine_made=machine_made, stage=stage)
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
