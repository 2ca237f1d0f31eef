"""The check for outputs that talk and say next to nothing: many words, few that were not in the question.

It counts words of four letters and more that carry a meaning, by their first six letters, which makes one of `market`
and `marketing`. Of what the embedded model wrote to advise or explain at some length, nearly all with fewer than 16
such words of its own is worthless: it turns the question round, or itself. Labels and short answers are left alone,
but for a sentence that tells how or why and has a handful of them at most.
"""

import re
from dataclasses import dataclass

from selfinstruct_local.filter.rules_zh import tokens
from selfinstruct_local.language import Language
from selfinstruct_local.tasks import Task

# Words of an output, of Chinese characters, from which on it is expected to say something.
_TALK = {"en": 30, "zh": 60}
# The same where the question is how or why, and how many new words are asked of what is shorter than the above.
_SENTENCE = {"en": 10, "zh": 20}
_LEAST_OF_A_SENTENCE = 6
_HOW_OR_WHY = re.compile(r"how (?:can|could|should|do|does)\b|why\b|为什么|如何|怎样", re.IGNORECASE)
_SHORTEST = 4
_STEM = 6
_LETTERS = re.compile(r"[^\W\d_]+")
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        """
        about above after again against also although always among another anything around because been before
        being below between both could does doing down during each either else even every from further have
        having here herself himself however include includes including into itself just least less like made make
        makes making many might more most much must myself need neither never next often once only other others
        ourselves over same shall should since some somebody someone something still such take than that their
        theirs them themselves then there these they thing things this those though through thus together toward
        towards under until upon used uses using very want well were what whatever when whenever where whether
        which while whom whose will with within without would your yours yourself
        """,
    )
)


@dataclass(frozen=True, slots=True)
class LittleNew:
    """The check that an output has words which its instruction and input lack.

    Attributes:
        least: different words wanted; in Chinese, characters.
        lang: whose words they are.
    """

    least: int
    lang: Language

    def __call__(self, task: Task) -> str | None:
        """How few there are, or None."""
        chinese = self.lang == "zh"
        cut = tokens if chinese else meaningful_words
        for instance in task.instances:
            length = len(tokens(instance.output)) if chinese else len(instance.output.split())
            least = self.least
            if length < _TALK[self.lang]:
                tells = length >= _SENTENCE[self.lang] and not instance.input and _HOW_OR_WHY.match(task.instruction)
                least = min(least, _LEAST_OF_A_SENTENCE) if tells else 0
            if least:
                known = cut(f"{task.instruction} {instance.input}")
                new = len(set(cut(instance.output)).difference(known))
                if new < least:
                    return f"of {length} words of an output {new} are new, at least {least} wanted"
        return None


def meaningful_words(text: str) -> list[str]:
    """The words of `text` that carry a meaning, by their first letters, in lower case."""
    words = _LETTERS.findall(text.lower())
    return [word[:_STEM] for word in words if len(word) >= _SHORTEST and word not in _EMPTY]
