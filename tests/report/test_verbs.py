"""The root verb of an instruction is the one its first sentence turns on; the figure counts it with its nouns."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from selfinstruct_local.report import verbs
from selfinstruct_local.report.verbs import RootVerb, VerbCounts, VerbObjects, count_verbs, root_verbs

if importlib.util.find_spec(verbs.MODEL) is None:
    pytest.skip(f"verbs and nouns need {verbs.MODEL}, which is missing", allow_module_level=True)

INSTRUCTIONS = ["Write a poem.", "Write a story about rain.", "Write a poem about the sea.", "Sort the list.", "Blue?"]


def test_verbs_are_those_the_sentence_turns_on() -> None:
    found = list(
        root_verbs(["Write a short poem about the sea. Then read it aloud.", "Translated the sentences.", "Blue?", ""])
    )
    assert found == [RootVerb("write", "poem"), RootVerb("translate", "sentence"), RootVerb(), RootVerb()]


def test_the_figure_counts_verbs_with_the_nouns_they_act_on() -> None:
    told: list[int] = []
    assert count_verbs(INSTRUCTIONS, told.append) == VerbCounts(
        parsed=5,
        with_verb=4,
        with_object=4,
        verbs=2,
        pairs=3,
        commonest=(VerbObjects("write", 3, (("poem", 2), ("story", 1))), VerbObjects("sort", 1, (("list", 1),))),
    )
    assert told == [5]
    assert count_verbs([]) == VerbCounts(0, 0, 0, 0, 0, ())


def test_no_more_verbs_and_nouns_than_the_figure_has_room_for() -> None:
    nouns = ("poem", "letter", "story", "song", "speech", "report", "novel")
    actions = ("Build", "Sell", "Draw", "Clean", "Describe", "Compare", "List", "Write", "Read", "Find", "Buy", "Fix")
    others = ("Paint", "Count", "Create", "Explain", "Translate", "Rewrite", "Move", "Open", "Cut", "Hide", "Wash")
    found = count_verbs([f"{verb} the {noun}." for verb in (*actions, *others) for noun in nouns])
    assert len(found.commonest) == 20
    assert max(len(each.nouns) for each in found.commonest) == 4
    counts = [each.count for each in found.commonest]
    assert counts == sorted(counts, reverse=True)


def test_processes_side_by_side_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"{text} Number {number}." for number in range(300) for text in INSTRUCTIONS]
    alone = count_verbs(many)
    monkeypatch.setattr(verbs, "MIN_PARALLEL", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0, 1})
    assert count_verbs(many) == alone


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from selfinstruct_local.report import verbs\n"
        "os.sched_getaffinity = lambda _process: {0, 1}\n"
        "verbs.count_verbs(['Name a river.'] * verbs.MIN_PARALLEL)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "RunError: a process that parses instructions" in done.stderr
    assert "needs 'if __name__ == \"__main__\":'" in done.stderr


def test_of_too_many_a_random_part_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "MAX_PARSED", 40)
    many = INSTRUCTIONS * 20
    found = count_verbs(many)
    assert found.parsed == 40
    assert found == count_verbs(many)
