"""The thresholds of the rules, kept apart so that settings and the command line can import them cheaply."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Thresholds(NamedTuple):
    """The thresholds of the rules that go beyond the published ones.

    Attributes:
        max_repetition: share of a text, in [0, 1], that one phrase may fill by following itself, and that repeated
            items and sentences may fill in an output.
        max_echo: highest allowed ROUGE-L F, in [0, 1], of an output with the instruction or a text of a few-shot
            example.
        max_foreign: share of an output's words, in [0, 1], that may be in a script that neither the task nor its
            language calls for; in a script without spaces each character is a word.
        refuse_refusals: whether an output that declines to answer is rejected.
        min_confidence: lowest allowed mean log-probability per token of the instruction, in nats; None disables the
            check.
        min_output_confidence: the same for the output.
        min_judge: lowest allowed score of a judge, from 1 to 5, where a judge was used.
    """

    max_repetition: float = 0.5
    max_echo: float = 0.8
    max_foreign: float = 0.3
    refuse_refusals: bool = True
    min_confidence: float | None = None
    min_output_confidence: float | None = None
    min_judge: float = 3.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the thresholds that `values` has by name, and the defaults for the others."""
        return cls(**{name: values[name] for name in cls._fields if name in values})


DEFAULT_THRESHOLDS = Thresholds()
