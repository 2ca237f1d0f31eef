"""The thresholds of the rules, apart from them so that settings and the command line can name them cheaply."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class Thresholds(NamedTuple):
    """What the rules beyond the published ones allow.

    Attributes:
        max_repetition: share of a text, in [0, 1], that one phrase may fill by following itself, and that the items
            and sentences of an output may fill that stood in it before.
        max_echo: ROUGE-L F, in [0, 1], up to which an output may be like the instruction or a text of a demonstration.
        max_foreign: share of an output's words, in [0, 1], that may be of a script that neither the task nor its
            language calls for; a character of a script without spaces is a word.
        refuse_refusals: whether an output that declines to answer is turned away.
        min_confidence: mean log-probability a token of the instruction, in nats, that the engine must have had; None
            asks for nothing.
        min_output_confidence: the same of the output.
        min_judge: least of a judge's points, from 1 to 5, where a judge was asked.
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
        """The limits that stand in `values` by their names; what is missing there is as it is by default."""
        return cls(**{name: values[name] for name in cls._fields if name in values})


DEFAULT_THRESHOLDS = Thresholds()
