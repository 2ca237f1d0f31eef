"""Which tasks of a batch surely pass the rules, seen on all their texts at once.

Nearly every record of a file passes every rule, and asking the rules one by one in Python takes longer than all else
the filter does. Here a compiled pass hashes the words of a whole batch, and a few array operations find what could be
refused; that alone is put before the rules, which decide.

Why the answer never differs: a task is called sure only if it has one instance, its instruction is ASCII, and none of
these facts holds; and each rule can refuse such a task only if the fact beside it does.

- too_short, too_long, empty_output: the words between white space, counted.
- asks_for_program: how it starts.
- starts_with_punctuation, starts_with_non_ascii: the first character is no letter and no digit.
- unsuitable_word: a word of letters, digits and underscores is the first word of a phrase, in any case.
- input_is_output, output_is_instruction: texts that are equal but for case and white space around them have the same
  words, so the sums of their words' hashes are equal.
- degenerate_repetition: where a phrase of up to 8 words follows itself over more than half of a text, more than half
  of the words stand among the 8 before them too.

Words are compared by 64-bit hashes, and a character beyond ASCII stands as a question mark: words that then look alike
and are not send a task to the rules, and no more. Inputs and outputs with white space beyond ASCII, which would divide
words too, or with the one such letter that is ASCII in lower case, go there at once.

Leans on: numpy, the word pass of the kernels.
"""

import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.filter.rules import (
    MAX_WORDS,
    MIN_WORDS,
    PROGRAM,
    REPETITION_MAX_PHRASE,
    REPETITION_MIN_WORDS,
    REPETITION_SHARE,
    RULE_SETS,
    UNSUITABLE,
    Rule,
)
from selfinstruct_local.kernels.vocabulary import split
from selfinstruct_local.tasks import Task

# The rules that the facts above speak of. A set that gains another is asked rule by rule until it stands here too.
COVERED = frozenset(
    {
        "too_short",
        "too_long",
        "asks_for_program",
        "starts_with_punctuation",
        "starts_with_non_ascii",
        "unsuitable_word",
        "empty_output",
        "input_is_output",
        "output_is_instruction",
        "degenerate_repetition",
    }
)
FEW = 32  # for so few tasks the rules are as fast, and need no compiled kernel

_BYTES = 256
_ASCII = 128


def _table(in_word: Callable[[str], bool]) -> NDArray[np.uint8]:
    """The byte table of the word pass, uint8[256]: lower case for a byte of a word, 0 for what divides words."""
    table = np.zeros(_BYTES, np.uint8)
    for byte in range(_ASCII):
        if in_word(chr(byte)):
            table[byte] = ord(chr(byte).lower())
    return table


_BETWEEN_SPACES = _table(lambda character: not character.isspace())
_WORD_CHARACTERS = _table(lambda character: character.isalnum() or character == "_")


# White space beyond ASCII, and the Kelvin sign, the only other character whose lower case is ASCII.
_search_odd = re.compile(r"[^\S\x00-\x7f]|\u212a").search


def surely_kept(rules: Sequence[Rule], tasks: Sequence[Task]) -> list[bool]:
    """Tells of each task whether it is certain, without asking them, that none of `rules` refuses it.

    False says nothing. It is all that comes for rules other than the published sets, and for a handful of tasks.
    """
    sure = [False] * len(tasks)
    first_words = _first_words(tuple(rules)) if len(tasks) >= FEW else None
    if first_words is None:
        return sure
    numbers: list[int] = []
    instructions: list[str] = []
    inputs: list[str] = []
    outputs: list[str] = []
    for number, (instruction, instances, _, _, _, _) in enumerate(tasks):
        if len(instances) == 1:
            ((given, output),) = instances
            if (
                instruction.isascii()
                and instruction[:1].isalnum()
                and not instruction.startswith(PROGRAM)
                and (given.isascii() or not _search_odd(given))
                and (output.isascii() or not _search_odd(output))
            ):
                numbers.append(number)
                instructions.append(instruction)
                inputs.append(given)
                outputs.append(output)
    if not numbers:
        return sure
    suspects = _suspects([*instructions, *inputs, *outputs], len(numbers), first_words)
    for number, suspect in zip(numbers, suspects.tolist(), strict=True):
        sure[number] = not suspect
    return sure


def _suspects(texts: list[str], tasks: int, first_words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether one of the facts about words holds, bool[tasks]; `texts` are all instructions, inputs, then outputs."""
    data = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8)  # a byte a character
    bounds = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=bounds[1:])
    hashes, offsets = _words(data, bounds, _BETWEEN_SPACES)
    counts = np.diff(offsets)
    words, _, words_of_output = counts.reshape(3, tasks)
    of_instruction, of_input, of_output = _sums(hashes, offsets).reshape(3, tasks)

    repeated = np.zeros(hashes.size, np.bool_)
    for back in range(1, REPETITION_MAX_PHRASE + 1):
        repeated[back:] |= hashes[back:] == hashes[:-back]  # may look into the text before, and then says too much
    loops = (counts >= REPETITION_MIN_WORDS) & (_sums(repeated, offsets) > REPETITION_SHARE * counts)
    _, input_loops, output_loops = loops.reshape(3, tasks)

    words_in, offsets_in = _words(data, bounds[: tasks + 1], _WORD_CHARACTERS)
    suspect: NDArray[np.bool_] = _sums(np.isin(words_in, first_words), offsets_in) > 0
    suspect |= (words < MIN_WORDS) | (words > MAX_WORDS) | (words_of_output == 0)
    suspect |= (of_input == of_output) | (of_instruction == of_output) | input_loops | output_loops
    return suspect


def _words(
    data: NDArray[np.uint8], bounds: NDArray[np.int64], table: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of the words of all texts, and where each text's begin: uint64[words], int64[texts + 1]."""
    room = (data.size + bounds.size) // 2 + 1  # a word and what ends it take two bytes, or a text's end
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    hashes, offsets = np.empty(room, np.uint64), np.empty_like(bounds)
    data.flags.writeable = False  # as the buffers of texts are: one compiled version serves both
    found = split(data, bounds, table, starts, ends, hashes, offsets)
    return hashes[:found], offsets


def _sums(values: NDArray[np.uint64] | NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of each text's values, modulo 2**64."""
    totals = np.zeros(values.size + 1, np.int64)
    np.cumsum(values.view(np.int64) if values.dtype == np.uint64 else values, out=totals[1:])
    sums: NDArray[np.int64] = totals[offsets[1:]] - totals[offsets[:-1]]
    return sums


@functools.cache
def _first_words(rules: tuple[Rule, ...]) -> NDArray[np.uint64] | None:
    """The hashes of the first words of the phrases that `rules` refuse; None for rules that are no published set."""
    for name, phrases in UNSUITABLE.items():
        if rules == RULE_SETS[name] and {rule.name for rule in rules} <= COVERED:
            data = " ".join(phrase.split()[0] for phrase in phrases).encode("ascii")
            return _words(np.frombuffer(data, np.uint8), np.array([0, len(data)]), _WORD_CHARACTERS)[0]
    return None
