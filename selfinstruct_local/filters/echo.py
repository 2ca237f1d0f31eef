"""Prompt echoes: outputs that repeat the instruction or a text of a few-shot example.

Echoes can be found only during generation, where the prompt is known. Inputs are not compared: a corrected text is
nearly its input.
"""

import warnings
from collections.abc import Sequence

from selfinstruct_local.kernels import Encoded, NoTokensWarning, TokenizerName, encode, rouge_l_matrix
from selfinstruct_local.kernels.vocabulary import Vocabulary
from selfinstruct_local.task import Task

ECHO = "prompt_echo"
# Shorter texts are labels, names and numbers, which tasks share.
MIN_TOKENS = 5
MIN_RECALLED = 3
# Compared characters per text. A comparison costs the product of the two lengths, and texts that share such a long
# beginning are alike.
COMPARED = 20_000
# What follows these may be the text to work on, which an output may repeat.
_MATERIAL = frozenset(':\n"\u201c\u201d\u300c\u300e\uff1a')


def echoes(
    tasks: Sequence[Task], shown: Sequence[Task], limit: float, tokenizer: TokenizerName = "rouge"
) -> list[str | None]:
    """Return, for each task, what an output of it echoes, or None.

    Args:
        tasks: the tasks parsed from the completions of one prompt.
        shown: the few-shot examples of the prompt.
        limit: ROUGE-L F, in [0, 1], above which one text echoes another.
        tokenizer: name of the similarity tokenizer.

    Returns:
        One entry per task. Each output is scored against its own instruction and the few-shot examples, all by their
        first `COMPARED` characters, in O(len(a) * len(b) / 64) per pair.
    """
    owners = [number for number, task in enumerate(tasks) for _ in task.instances]
    if limit >= 1 or not owners:
        return [None] * len(tasks)
    outputs = [each.output for task in tasks for each in task.instances]
    texts = [text for task in shown for text in (task.instruction, *(each.output for each in task.instances))]
    vocabulary = Vocabulary(tokenizer)
    said = _encoded(outputs, vocabulary)
    asked = _encoded([task.instruction for task in tasks], vocabulary)
    others = _best_scores(said, _encoded(texts, vocabulary))
    found: list[str | None] = [None] * len(tasks)
    for row, (owner, output) in enumerate(zip(owners, outputs, strict=True)):
        own = _best_scores(said.block(row, row + 1), asked.block(owner, owner + 1))[0]
        if own > limit and not _has_material(tasks[owner].instruction, output):
            found[owner] = f"ROUGE-L {own:.3f} between an output and its instruction"
        elif others[row] > limit:
            found[owner] = f"ROUGE-L {others[row]:.3f} between an output and a few-shot example"
    return found


def best_scores(texts: Sequence[str], others: Sequence[str], tokenizer: TokenizerName) -> list[float]:
    """Return the highest ROUGE-L F of each text with one of `others`, by their first `COMPARED` characters.

    The score is 0 if either text has fewer than `MIN_TOKENS` tokens or `others` is empty.
    """
    vocabulary = Vocabulary(tokenizer)
    return _best_scores(_encoded(texts, vocabulary), _encoded(others, vocabulary))


def recall(text: str, other: str, tokenizer: TokenizerName) -> float:
    """Return the ROUGE-L recall of a text: the share of its tokens that the other has in the same order.

    The recall is 0 for texts of fewer than `MIN_RECALLED` tokens.
    """
    vocabulary = Vocabulary(tokenizer)
    one, two = _encoded([text], vocabulary), _encoded([other], vocabulary)
    length, other_length = int(one.lengths[0]), int(two.lengths[0])
    if length < MIN_RECALLED:
        return 0.0
    return float(rouge_l_matrix(one, two, threads=1)[0, 0]) * (length + other_length) / 2 / length


def _best_scores(said: Encoded, heard: Encoded) -> list[float]:
    """Return the highest score of each output with a text; 0 if either is too short or there are no texts."""
    if not len(heard):
        return [0.0] * len(said)
    scores = rouge_l_matrix(said, heard, threads=1)  # a few dozen pairs: another thread costs more
    scores[:, heard.lengths < MIN_TOKENS] = 0
    scores[said.lengths < MIN_TOKENS] = 0
    best: list[float] = scores.max(axis=1).tolist()
    return best


def _encoded(texts: Sequence[str], vocabulary: Vocabulary) -> Encoded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTokensWarning)  # an output may be a single symbol
        return encode([text[:COMPARED] for text in texts], vocabulary.tokenizer, vocabulary)


def _has_material(instruction: str, output: str) -> bool:
    """Return whether the instruction contains a text to work on and the output does not begin like the instruction."""
    return not _MATERIAL.isdisjoint(instruction) and output[:MIN_TOKENS].lower() != instruction[:MIN_TOKENS].lower()
