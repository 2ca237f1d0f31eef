"""Decontamination: rejects tasks that share an n-gram of words with an evaluation set.

13 words and one shared n-gram are the customary rule (Brown et al. 2020, "Language Models are Few-Shot Learners",
appendix C). Texts with fewer words cannot be compared; the number of such evaluation texts is reported.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from selfinstruct_local.errors import UsageError
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.kernels import NoTokensWarning, TokenizerName
from selfinstruct_local.kernels.ngrams import NgramSet
from selfinstruct_local.task import Task

CONTAMINATED = "contaminated"


class EvaluationSet:
    """The n-grams of evaluation files."""

    def __init__(self, paths: Sequence[Path], ngram: int, tokenizer: TokenizerName = "rouge") -> None:
        """Read the evaluation files.

        Args:
            paths: files of tasks; each instruction, input and output is a separate text.
            ngram: number of words per n-gram.
            tokenizer: the filter's tokenizer.

        Raises:
            UsageError: a file cannot be read, or no text is as long as an n-gram.
        """
        texts = [text for path in paths for task in read_tasks(path) for text in _texts(task)]
        with _silently():
            self._ngrams = NgramSet(texts, ngram, tokenizer)
        if not len(self._ngrams):
            message = f"--decontaminate {paths[0]}: no text has {ngram} words, so nothing could be found; lower --ngram"
            raise UsageError(message)

    @property
    def too_short(self) -> int:
        """Return the number of evaluation texts that are shorter than an n-gram."""
        return self._ngrams.too_short

    def refusals(self, tasks: Sequence[Task]) -> list[str | None]:
        """Return, for each task, what it shares with the evaluation set, or None."""
        texts = [text for task in tasks for text in _texts(task)]
        with _silently():
            shared = iter(self._ngrams.overlap(texts).tolist() if texts else [])
        counts = [sum(next(shared) for _ in _texts(task)) for task in tasks]
        return [
            f"shares {count} {self._ngrams.n}-gram(s) with the evaluation set" if count else None for count in counts
        ]


@contextmanager
def _silently() -> Iterator[None]:
    """Suppress the warning about texts without tokens: an output may be a single symbol, which has no n-gram anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTokensWarning)
        yield


def _texts(task: Task) -> list[str]:
    return [task.instruction, *(text for each in task.instances for text in (each.input, each.output) if text)]
