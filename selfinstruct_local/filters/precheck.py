"""The precheck: finds the tasks of a batch that surely pass the rules, from all their texts at once.

Nearly every record of a file passes every rule, and calling the rules one by one in Python takes longer than everything
else the filter does. Here a compiled pass hashes the words of a whole batch, and a few array operations find the tasks
that could be rejected; only those are given to the rules, which decide.

The result never differs from that of the rules. A task is called sure only if it has one instance, its instruction is
ASCII, and none of the facts below holds; and each rule can reject such a task only if the fact next to its name holds.

- too_short, too_long, empty_output: the number of words between white space.
- asks_for_program: how the instruction starts.
- starts_with_punctuation, starts_with_non_ascii: the first character is neither a letter nor a digit.
- unsuitable_word: a word of letters, digits and underscores is the first word of a phrase, in any case.
- missing_input: the input is blank, and a word refers to something.
- output_is_instruction: texts that are equal except for case and surrounding white space have the same words, so the
  sums of their words' hashes are equal. input_is_output: the sums or the numbers of words are equal.
- refusal: the first word of letters of the output begins a refusal, or the output contains `however`.
- placeholder: the input or output contains a bracket or an angle bracket, or the output contains `lorem`.
- cut_off: an output begins with a 1 or has the first item of a list, also after a colon, ends with a colon, has a
  backtick or a word that announces something; or there is white space at either end.
- copied: the output has at most a few more words than the instruction or the input, and enough to be a sentence of
  them.
- clarifying_question: the output contains a question mark, or a word such as `happy`. wrong_arithmetic: an equals sign.
- not_reworded: the instruction has a word that asks for a rewording.
- failed_check: the instruction has a word that states what is checked, such as `words` or `json`, the output has a
  backtick or few words, or the task is marked as classification.
- foreign_script: an output has a letter beyond ASCII. low_confidence, judged_low: the measures; both rules are called
  at once.
- degenerate_repetition: if a phrase of up to 8 words follows itself over more than a share of a text, more than that
  share of the words also occur among the 8 words before them. If repeated pieces fill more than a share of an output,
  fewer than the rest of its words of letters are different.

Some facts hold for several percent of the tasks. If nothing else makes such a task suspicious, only that check is
called.

Words are compared by 64-bit hashes, and a character beyond ASCII becomes a question mark: different words that look
equal only send a task to the rules. Texts with white space, letters or digits beyond ASCII go to the rules at once.
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from selfinstruct_local.filters import rules as published
from selfinstruct_local.filters.arithmetic import wrong_arithmetic
from selfinstruct_local.filters.checks import STATES, FailedCheck
from selfinstruct_local.filters.clarifying import OFFERING, clarifying_question
from selfinstruct_local.filters.faults import (
    POINTERS,
    REFUSAL_OPENINGS,
    REFUSAL_TURN,
    missing_input,
    refusal,
)
from selfinstruct_local.filters.labels import MAX_LABEL_WORDS
from selfinstruct_local.filters.measured import JudgedLow, LowConfidence
from selfinstruct_local.filters.placeholders import placeholder
from selfinstruct_local.filters.repetition import MAX_PHRASE, MIN_WORDS, Repetition, latin_letters
from selfinstruct_local.filters.rewording import REWORDING, not_reworded
from selfinstruct_local.filters.rules import Rule, UnsuitableWord, input_is_output
from selfinstruct_local.filters.scripts import ForeignScript
from selfinstruct_local.filters.unfinished import (
    ANNOUNCING,
    COPIED_WORDS,
    FIRST_ITEM,
    INLINE_ITEM,
    copied,
    cut_off,
)
from selfinstruct_local.kernels.vocabulary import split
from selfinstruct_local.task import Task

# The checks that the facts above cover; `_facts` handles those with settings of their own. Rule sets with any other
# check are called rule by rule.
COVERED = frozenset(
    {*(rule.refuses for rule in (*published.INSTRUCTION_RULES, *published.INSTANCE_RULES)), missing_input, refusal}
    | {placeholder, cut_off, copied, clarifying_question, not_reworded, wrong_arithmetic}
)
FEW = 32  # for fewer tasks the rules are as fast, and need no compiled kernel

_BYTES = 256
_ASCII = 128


def _table(in_word: Callable[[str], bool]) -> NDArray[np.uint8]:
    """Return the byte table of the word pass, uint8[256]: lower case for a byte of a word, 0 for a separator."""
    table = np.zeros(_BYTES, np.uint8)
    for byte in range(_ASCII):
        if in_word(chr(byte)):
            table[byte] = ord(chr(byte).lower())
    return table


_BETWEEN_SPACES = _table(lambda character: not character.isspace())
_WORD_CHARACTERS = _table(lambda character: character.isalnum() or character == "_")
_LETTERS = _table(str.isalpha)
_NO_REPETITION = Repetition(str.split, MIN_WORDS, MAX_PHRASE, characters=0, limit=1.0, letters=latin_letters)
_FIRST = frozenset("1 \t\r\n\f\v\x1c\x1d\x1e\x1f")
_LAST = frozenset(": \t\r\n\f\v\x1c\x1d\x1e\x1f")
_SLOT_BRACKETS = np.isin(np.arange(_BYTES), list(b"[<"))

# Matches characters beyond ASCII outside these ranges of marks and symbols, which contain no white space, letters or
# digits.
_search_odd = re.compile("[^\x00-\x7f\u00a1-\u00a9\u00ab-\u00b1\u2010-\u2027\u2030-\u205e\u20a0-\u20bf]").search

_Unclear: TypeAlias = tuple[tuple[Callable[[Task], str | None], NDArray[np.bool_]], ...]


class _Facts(NamedTuple):
    """What the precheck looks for instead of calling the rules.

    Attributes:
        first_words: hashes of the first words of unsuitable phrases, uint64[n].
        pointers: hashes of the words one of which occurs in every instruction that refers to something, uint64[n].
        repetition: the repetition check.
        measured: the rules on measures, which are called.
        failed: the `FailedCheck` rule, if it is in the rule set.
    """

    first_words: NDArray[np.uint64]
    pointers: NDArray[np.uint64]
    repetition: Repetition
    measured: tuple[Rule, ...]
    failed: FailedCheck | None


def surely_kept(rules: Sequence[Rule], tasks: Sequence[Task]) -> list[bool]:
    """Return, for each task, whether it is certain that none of `rules` rejects it, without calling most of them.

    False means unknown. It is always the result for rules that are not covered, and for fewer than `FEW` tasks.
    """
    sure = [False] * len(tasks)
    facts = _facts(tuple(rules)) if len(tasks) >= FEW else None
    if facts is None:
        return sure
    numbers: list[int] = []
    instructions: list[str] = []
    inputs: list[str] = []
    outputs: list[str] = []
    classification: list[bool] = []
    for number, task in enumerate(tasks):
        instruction, instances, marked, _, _, measures = task
        if len(instances) == 1:
            ((given, output),) = instances
            if (
                instruction.isascii()
                and instruction[:1].isalnum()
                and not instruction.startswith(published.PROGRAM)
                and (given.isascii() or not _search_odd(given))
                and (output.isascii() or not _search_odd(output))
                and (not measures or all(rule.refuses(task) is None for rule in facts.measured))
            ):
                numbers.append(number)
                instructions.append(instruction)
                inputs.append(given)
                outputs.append(output)
                classification.append(bool(marked))
    if not numbers:
        return sure
    suspects, unclear = _suspects([*instructions, *inputs, *outputs], np.array(classification), facts)
    for number, suspect in zip(numbers, suspects.tolist(), strict=True):
        sure[number] = not suspect
    for refuses, rows in unclear:
        for row in np.flatnonzero(rows & ~suspects).tolist():
            number = numbers[row]
            if sure[number]:
                sure[number] = refuses(tasks[number]) is None
    return sure


def _suspects(texts: list[str], classification: NDArray[np.bool_], facts: _Facts) -> tuple[NDArray[np.bool_], _Unclear]:
    """Return whether a fact about words holds, bool[tasks], and the checks that are called only where their fact holds.

    Args:
        texts: all instructions, then all inputs, then all outputs.
        classification: which tasks are marked as classification, bool[tasks].
        facts: what to look for.
    """
    tasks = classification.size
    data = np.frombuffer("".join(texts).encode("ascii", "replace"), np.uint8)  # one byte per character
    bounds = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=bounds[1:])
    hashes, offsets = _words(data, bounds, _BETWEEN_SPACES)
    counts = np.diff(offsets)
    words, words_of_input, words_of_output = counts.reshape(3, tasks)
    of_instruction, of_input, of_output = _sums(hashes, offsets).reshape(3, tasks)

    repeated = np.zeros(hashes.size, np.bool_)
    for back in range(1, MAX_PHRASE + 1):
        repeated[back:] |= hashes[back:] == hashes[:-back]  # may look into the text before, which only adds suspects
    loops = (counts >= MIN_WORDS) & (_sums(repeated, offsets) > facts.repetition.limit * counts)
    _, input_loops, output_loops = loops.reshape(3, tasks)

    words_in, offsets_in = _words(data, bounds[: tasks + 1], _WORD_CHARACTERS)
    suspect: NDArray[np.bool_] = _has_any(words_in, offsets_in, facts.first_words)
    suspect |= (words < published.MIN_WORDS) | (words > published.MAX_WORDS) | (words_of_output == 0)
    suspect |= (of_input == of_output) | (of_instruction == of_output) | input_loops | output_loops
    points = (words_of_input == 0) & _has_any(words_in, offsets_in, facts.pointers)

    letters, offsets = _words(data, bounds[2 * tasks :], _LETTERS)
    recurs = _may_recur(letters, offsets, facts.repetition.limit)
    declines = _has_any(letters, offsets, _hashes((REFUSAL_TURN,)))
    if letters.size:
        first = letters[np.minimum(offsets[:-1], letters.size - 1)]  # from a later text if there is none
        declines |= np.isin(first, _hashes(REFUSAL_OPENINGS))
    slots = _has_any(letters, offsets, _hashes(("lorem",)))
    brackets = bounds[tasks] + np.flatnonzero(_SLOT_BRACKETS[data[bounds[tasks] :]])
    slots[(np.searchsorted(bounds[tasks:], brackets, "right") - 1) % tasks] = True
    outputs = texts[2 * tasks :]
    breaks = np.fromiter(map(_may_break_off, outputs), np.bool_, tasks)
    quotes_code = _has_byte(data, bounds[2 * tasks :], b"`")
    checked = _has_any(words_in, offsets_in, _hashes(STATES)) | quotes_code | classification
    checked |= words_of_output <= MAX_LABEL_WORDS
    breaks |= quotes_code | _has_any(letters, offsets, _hashes(ANNOUNCING))
    return suspect, (
        (missing_input, points),
        (refusal, declines),
        (placeholder, slots),
        (cut_off, breaks),
        # A sentence may have, at either end, a word that its text contains only in part.
        (copied, (words_of_output >= COPIED_WORDS) & (words_of_output <= np.maximum(words, words_of_input) + 2)),
        (
            clarifying_question,
            _has_byte(data, bounds[2 * tasks :], b"?") | _has_any(letters, offsets, _hashes(OFFERING)),
        ),
        (input_is_output, (words_of_input == words_of_output) & (words_of_input > 1)),
        (not_reworded, _has_any(words_in, offsets_in, _hashes(REWORDING))),
        (wrong_arithmetic, _has_byte(data, bounds[2 * tasks :], b"=")),
        (facts.repetition.recurs, recurs),
        *([(facts.failed, checked)] if facts.failed else []),
    )


def _may_break_off(text: str) -> bool:
    if text[:1] in _FIRST or text[-1:] in _LAST or INLINE_ITEM in text:
        return True
    return "\n" in text and FIRST_ITEM.search(text) is not None


def _has_byte(data: NDArray[np.uint8], bounds: NDArray[np.int64], byte: bytes) -> NDArray[np.bool_]:
    """Return whether each text, from one of `bounds` to the next, contains a byte, bool[texts]."""
    has = np.zeros(bounds.size - 1, np.bool_)
    found = bounds[0] + np.flatnonzero(data[bounds[0] : bounds[-1]] == byte[0])
    has[np.searchsorted(bounds, found, "right") - 1] = True
    return has


def _may_recur(letters: NDArray[np.uint64], offsets: NDArray[np.int64], limit: float) -> NDArray[np.bool_]:
    """Return whether repeated pieces may fill more than `limit` of each text, by its number of different words."""
    counts = np.diff(offsets)
    # Different words are counted in one sorted array of (text, hash); hashes that agree in 40 bits lower the count.
    keys = np.repeat(np.arange(counts.size, dtype=np.uint64) << np.uint64(40), counts) | (letters >> np.uint64(24))
    keys.sort()
    new = np.ones(keys.size, np.bool_)
    new[1:] = keys[1:] != keys[:-1]
    may: NDArray[np.bool_] = (counts >= MIN_WORDS) & (_sums(new, offsets) < (1 - limit) * counts)
    return may


def _words(
    data: NDArray[np.uint8], bounds: NDArray[np.int64], table: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the hashes of the words of all texts, uint64[words], and each text's offset in them, int64[texts + 1]."""
    room = (data.size + bounds.size) // 2 + 1  # a word and its separator take two bytes; a text's end separates too
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    hashes, offsets = np.empty(room, np.uint64), np.empty_like(bounds)
    data.flags.writeable = False  # like the buffers of texts, so that one compiled version serves both
    found = split(data, bounds, table, starts, ends, hashes, offsets)
    return hashes[:found], offsets


def _sums(values: NDArray[np.uint64] | NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum of each text's values, modulo 2**64."""
    totals = np.zeros(values.size + 1, np.int64)
    np.cumsum(values.view(np.int64) if values.dtype == np.uint64 else values, out=totals[1:])
    sums: NDArray[np.int64] = totals[offsets[1:]] - totals[offsets[:-1]]
    return sums


def _has_any(values: NDArray[np.uint64], offsets: NDArray[np.int64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return whether each text has one of the words, bool[texts]."""
    has: NDArray[np.bool_] = _sums(np.isin(values, wanted), offsets) > 0
    return has


@functools.cache
def _hashes(words: tuple[str, ...]) -> NDArray[np.uint64]:
    """Return the hashes of words of ASCII letters, uint64[len(words)]."""
    data = " ".join(words).encode("ascii")
    return _words(np.frombuffer(data, np.uint8), np.array([0, len(data)]), _WORD_CHARACTERS)[0]


@functools.cache
def _facts(rules: tuple[Rule, ...]) -> _Facts | None:
    """Return what to look for instead of calling `rules`, or None if a rule is not covered."""
    phrases: Iterable[str] = ()
    repetition = _NO_REPETITION
    measured = []
    failed = None
    for rule in rules:
        match rule.refuses:
            case UnsuitableWord():
                phrases = rule.refuses.phrases
            case Repetition(cut=str.split, least=least, longest=longest, letters=letters) if (
                letters is latin_letters and least == MIN_WORDS and longest == MAX_PHRASE
            ):
                repetition = rule.refuses
            case ForeignScript(lang="en"):
                pass
            case FailedCheck(lang="en"):
                failed = rule.refuses
            case LowConfidence() | JudgedLow():
                measured.append(rule)
            case check if check not in COVERED:
                return None
    first_words = tuple(phrase.split()[0] for phrase in phrases)
    return _Facts(_hashes(first_words), _hashes(POINTERS), repetition, tuple(measured), failed) if rules else None
