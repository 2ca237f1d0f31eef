"""The card beside an export: its header is read by hubs, its figures are the run's, and data in it stays data."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard

from selfinstruct_local.generate.rewriting.profile import Command
from selfinstruct_local.generate.rewriting.sources import open_rewriting
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.files import checksum
from selfinstruct_local.languages.base import Language
from selfinstruct_local.runs.export.card import MARK, make_card
from selfinstruct_local.runs.export.write import export_run
from selfinstruct_local.runs.store import RunStore
from tests.generate.test_run import generate, settings
from tests.scripted_engine import ScriptedEngine


@pytest.fixture
def run(tmp_path: Path) -> Path:
    generate(tmp_path / "run", settings(num=6), ScriptedEngine())
    return tmp_path / "run"


def test_a_card_tells_what_made_the_file(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "data" / "tasks.jsonl"
    with RunStore(run, read_only=True) as store:
        exported = export_run(store, "alpaca", out)
        totals, facts = store.totals(), store.facts()
    assert exported.card == tmp_path / "data" / "README.md"
    card = DatasetCard.load(exported.card)
    assert card.data.language == ["en"]
    assert card.data.size_categories == ["n<1K"]
    header = yaml.safe_load(exported.card.read_text(encoding="utf-8").split("---")[1])
    assert header["configs"] == [{"config_name": "default", "data_files": "tasks.jsonl"}]
    text = card.text
    assert checksum(out) in text
    assert f"{totals.accepted:,} tasks accepted" in text
    assert all(f"| {rule.replace('_', chr(92) + '_')} | {count} |" in text for rule, count in totals.rejected.items())
    assert str(facts["seeds_fingerprint"]) in text
    assert f"| threshold | {facts['threshold']} |" in text
    assert str(tmp_path) not in text


def test_a_readme_of_somebody_else_stands(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "README.md"
    mine.write_text("# My project\n", encoding="utf-8")
    with RunStore(run, read_only=True) as store:
        first = export_run(store, "alpaca", tmp_path / "tasks.json").card
        assert first == tmp_path / "tasks-README.md"
        mine.write_text(f"{MARK} of an earlier export", encoding="utf-8")
        assert export_run(store, "messages", tmp_path / "tasks.jsonl").card == mine


def test_each_export_of_a_folder_keeps_its_card(run: Path, tmp_path: Path) -> None:
    with RunStore(run, read_only=True) as store:
        for _ in range(2):  # the same export again is told by the same card
            assert export_run(store, "alpaca", tmp_path / "first.json").card == tmp_path / "README.md"
            assert export_run(store, "messages", tmp_path / "second.jsonl").card == tmp_path / "second-README.md"
        assert "`first.json`" in (tmp_path / "README.md").read_text(encoding="utf-8")
        (tmp_path / "first.json").unlink()
        assert export_run(store, "messages", tmp_path / "second.jsonl").card == tmp_path / "README.md"


def test_a_rewritten_run_tells_of_all_that_wrote_it(run: Path, tmp_path: Path) -> None:
    """Translated, then polished, by three models; and nothing of where a run or a model lies."""
    chosen = GenerateSettings(rules="alpaca")
    steps: list[tuple[Command, Language | None]] = [("translate", "zh"), ("polish", None)]
    source = run
    for command, to in steps:
        into = tmp_path / command
        model = {"model_path": f"/models/{command}r", "model_fingerprint": command, "adapter_fingerprint": None}
        with RunStore(source, read_only=True) as old, RunStore(into) as new:
            open_rewriting(new, old, command, chosen, model, to=to)
        with RunStore(source, read_only=True) as old, RunStore(into) as new:
            open_rewriting(new, old, command, chosen, model, to=to)  # goes on
        source = into
    (tmp_path / "x.json").write_text("[]")
    with RunStore(source, read_only=True) as store:
        text = make_card(store, tmp_path / "x.json", "alpaca", 0)
    assert yaml.safe_load(text.split("---")[1])["language"] == ["zh", "en"]
    assert "| model | polishr |" in text
    assert "| model of the source tasks | none |\n| its checksum | 0000" in text
    assert "| model of the source tasks | translater |\n| its checksum | translate |" in text
    assert "(polishr, none, translater)" in text
    assert str(tmp_path) not in text
    assert "/models" not in text
    assert "source\\_run" not in text


def test_names_and_topics_cannot_break_out_of_the_table(tmp_path: Path) -> None:
    facts = {"lang": "en", "topics": ["a | b <img src=x>\n# heading\x1b[31m"], "model_path": "/x/[link](y)"}
    with RunStore(tmp_path / "run") as store:
        store.create(facts, [])
        out = tmp_path / "x.json"
        out.write_bytes(b"[]")
        card = make_card(store, out, "alpaca", 0)
    (line,) = [line for line in card.splitlines() if line.startswith("| topics")]
    assert "<img" not in line.replace("\\<", "")
    assert "\x1b" not in card
    assert "\n# heading" not in card
