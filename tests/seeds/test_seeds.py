"""What every seed file must hold. The facts inside the seeds are checked in the test_facts_*.py beside it."""

import unicodedata
from collections import Counter
from itertools import combinations

import orjson
import pytest
from rouge_score.rouge_scorer import RougeScorer

from selfinstruct_local.filters.rules import apply_rules
from selfinstruct_local.filters.rulesets import RULE_SETS, rule_set
from selfinstruct_local.generate.parsing.tasks import parse_task_blocks
from selfinstruct_local.io.reader import read_rows, read_tasks
from selfinstruct_local.seeds import seed_file
from tests.generate.test_parse import completion

SEEDS = read_tasks(seed_file("en"))
FIELDS = ["id", "name", "instruction", "instances", "is_classification", "category", "verb", "topic"]


def test_there_are_175_and_they_have_all_fields() -> None:
    rows = list(read_rows(seed_file("en")))
    assert len(rows) == 175
    assert [row.record["id"] for row in rows] == [f"en-{number:03}" for number in range(1, 176)]
    assert all(list(row.record) == FIELDS for row in rows)
    for field in ("id", "name", "instruction"):
        assert len({row.record[field] for row in rows}) == len(rows)


def test_no_rule_hits_a_seed() -> None:
    for seed in SEEDS:
        for name in RULE_SETS:
            verdict = apply_rules(rule_set(name), seed)
            assert verdict.keep, (name, seed.id, verdict)


def test_no_two_instructions_are_alike() -> None:
    scorer = RougeScorer(["rougeL"])
    for one, other in combinations(SEEDS, 2):
        score = scorer.score(one.instruction, other.instruction)["rougeL"].fmeasure
        assert score <= 0.5, (one.id, other.id, score)


def test_the_spread() -> None:
    labelled = sum(bool(seed.is_classification) for seed in SEEDS)
    without_input = sum(not seed.input for seed in SEEDS) / len(SEEDS)
    assert 26 <= labelled <= 40
    assert 0.28 <= without_input <= 0.38
    verbs = Counter(row.record["verb"] for row in read_rows(seed_file("en")))
    assert len(verbs) >= 60
    openings = Counter(" ".join(seed.instruction.lower().split()[:3]) for seed in SEEDS)
    assert max(openings.values()) <= 4
    assert all(4 <= len(seed.instruction.split()) <= 80 for seed in SEEDS)


def test_the_text_is_clean() -> None:
    for line in seed_file("en").read_text(encoding="utf-8").splitlines():
        assert unicodedata.normalize("NFC", line) == line
        record = orjson.loads(line)
        texts = [record["instruction"], *(text for each in record["instances"] for text in each.values())]
        assert all(text == text.strip() for text in texts)
        assert all(line == line.rstrip() for text in texts for line in text.split("\n"))
        assert not any("###" in text for text in texts)
        assert all(each["output"] for each in record["instances"])


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.id)
def test_a_seed_survives_the_format_of_the_prompts(seed) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
    text = f" {seed.instruction}\nInput: {seed.input or 'none'}\nOutput: {seed.output}"
    (draft,) = parse_task_blocks(completion(text))
    assert (draft.rule, draft.task.input, draft.task.output) == ("", seed.input, seed.output)
