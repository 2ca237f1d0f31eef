"""The published programs' decisions once more, written from their description alone: slow, plain, shares no code.

Scores are google's. Whatever the program under test does with indexes, stores and schedulers, this goes through the
recorded completions one after the other and compares each instruction with all before it.
"""

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rouge_score.rouge_scorer import RougeScorer

SELF_INSTRUCT_WORDS = [
    "image",
    "images",
    "graph",
    "graphs",
    "picture",
    "pictures",
    "file",
    "files",
    "map",
    "maps",
    "draw",
    "plot",
]
ALPACA_WORDS = [*SELF_INSTRUCT_WORDS, "video", "audio", "music", "flowchart", "diagram"]

_SCORER = RougeScorer(["rougeL"])


class Accepted(NamedTuple):
    """An instruction that joined, its (input, output) pairs, its ten nearest, its mean score, and job and position."""

    instruction: str
    cases: list[tuple[str, str]]
    nearest: dict[str, float]
    mean: float
    place: tuple[int, int]


class Pool:
    """All instructions so far, and who joined."""

    def __init__(self, seeds: Iterable[str]) -> None:
        self.texts = list(seeds)
        self.accepted: list[Accepted] = []

    def offer(self, instruction: str, cases: list[tuple[str, str]], place: tuple[int, int]) -> None:
        scores = [_SCORER.score(instruction, text)["rougeL"].fmeasure for text in self.texts]
        if max(scores) > 0.7:
            return
        best = sorted(range(len(scores)), key=lambda position: (-scores[position], position))[:10]
        nearest = {self.texts[position]: scores[position] for position in best}
        self.accepted.append(Accepted(instruction, cases, nearest, sum(scores) / len(scores), place))
        self.texts.append(instruction)


def cut_at_stops(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """What a server gives of a text that would go on past a stop, and whether it met one."""
    places = [text.index(stop) for stop in stops if stop in text]
    return (text[: min(places)], True) if places else (text, False)


def passes(instruction: str, words: Sequence[str]) -> bool:
    """The rules for instructions."""
    bag = re.findall(r"\w+", instruction.lower())
    return (
        3 < len(instruction.split()) <= 150
        and not set(bag) & set(words)
        and re.search(r"(?<!\w)go to(?!\w)", instruction, re.IGNORECASE) is None
        and not instruction.startswith("Write a program")
        and instruction[0] not in string.punctuation
        and ord(instruction[0]) < 128
    )


def alpaca(seeds: Iterable[str], recorded: Iterable[dict[str, Any]]) -> Pool:
    """generate_instruction.py over recorded completions."""
    pool = Pool(seeds)
    for job, each in enumerate(recorded):
        if each["finish_reason"] == "refused":
            continue
        text, stopped = cut_at_stops(each["text"], ["\n20", "20."])
        blocks = ("4. Instruction:" + text).split("###")
        for position, block in enumerate(blocks):
            if position == len(blocks) - 1 and not stopped and each["finish_reason"] == "length":
                continue
            parts = re.split(rf"{position + 4}\.\s+(?:Instruction|Input|Output):", block)
            if len(parts) != 4:
                continue
            instruction, given, output = (part.strip() for part in parts[1:])
            if passes(instruction or "-", ALPACA_WORDS):
                given = "" if given.lower() == "<noinput>" else given
                pool.offer(instruction, [(given, output)], (job, position))
    return pool


def self_instruct(seeds: Iterable[str], recorded: Iterable[dict[str, Any]]) -> Pool:
    """The four programs over recorded completions."""
    pool = Pool(seeds)
    for job, each in enumerate(recorded):
        listing = each["instructions"]
        text, stopped = cut_at_stops(listing["text"], ["\n\n", "\n16", "16.", "16 ."])
        if listing["finish_reason"] == "refused" or (listing["finish_reason"] == "length" and not stopped):
            continue
        for position, item in enumerate(re.split(r"\n\d+\s?\. ", text)):
            instruction = " ".join(item.split())
            instruction = instruction[:1].title() + instruction[1:].lower()
            if passes(instruction or "-", SELF_INSTRUCT_WORDS):
                kind, _ = cut_at_stops(each["classification"][str(position)], ["\n", "Task"])
                labelled = kind.strip() in {"Yes", "yes", "YES"}
                pool.offer(
                    instruction, list(_cases(each["instance"][str(position)], labelled=labelled)), (job, position)
                )
    return pool


def _cases(completion: dict[str, str], *, labelled: bool) -> Iterator[tuple[str, str]]:
    """The whole cases in their order, each once, five at most; none if two contradict each other."""
    text, stopped = cut_at_stops(completion["text"], ["Example 6", "Task:"])
    found = _labelled(text) if labelled else _worked(text.strip())
    if completion["finish_reason"] == "length" and not stopped:
        found = found[:-1]
    whole: list[tuple[str, str]] = []
    for given, output in found:
        if output and given != output and given[-1:] != ":" and output[-1] != ":" and (given, output) not in whole:
            whole.append((given, output))
    inputs = [given for given, _ in whole if given]
    if len(inputs) == len(set(inputs)):
        yield from whole[:5]


def _labelled(text: str) -> list[tuple[str, str]]:
    pieces = [piece.strip().split("\n") for piece in text.split("Class label:")[1:]]
    return [("\n".join(lines[1:]).strip(), lines[0].strip()) for lines in pieces]


def _worked(text: str) -> list[tuple[str, str]]:
    pieces = re.split(r"Example\s?\d*\.?", text)
    if len(pieces) == 1 and not re.search(r"Output\s*\d*\s*:", text):
        return []
    found = []
    for piece in filter(None, map(str.strip, pieces)):
        parts = re.split(r"Output\s*\d*\s*:", piece)
        given, output = ("", parts[0]) if len(parts) == 1 else (parts[0].strip(), parts[1])
        output = re.split(r"Input\s*\d*\s*:", output.strip())[0]
        found.append((re.sub(r"\AInput\s*\d*\s*:", "", given).strip(), output.strip()))
    return found
