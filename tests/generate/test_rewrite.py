"""`translate` and `polish` against an engine that rewrites by a table, in the real loop and store."""

import re
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, FinishReason, Request
from selfinstruct_local.errors import EngineDeadError, UsageError
from selfinstruct_local.generate.create import import_tasks
from selfinstruct_local.generate.display import RunDisplay
from selfinstruct_local.generate.rewriting.profile import Command, RewritePrompt
from selfinstruct_local.generate.rewriting.sources import open_rewriting
from selfinstruct_local.generate.run import EXPORT, Outcome, run
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.progress import stderr_console
from selfinstruct_local.languages.base import Language
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.prompts import load_prompt
from selfinstruct_local.runs.store import Candidate, RunStore
from tests.conftest import RunCli
from tests.generate.test_run import MODEL, generate
from tests.generate.test_run import settings as generating
from tests.scripted_engine import ScriptedEngine

Record = Mapping[str, str]

TASKS: list[dict[str, str]] = [
    {"instruction": "Name the longest river of Africa.", "input": "", "output": "The Nile is 6,650 km long."},
    {"instruction": "Explain what `pip list` does.", "input": "pip list", "output": "It lists packages."},
    {"instruction": "Tell whether the review is good or bad.", "input": "I love this film.", "output": "Good"},
    {"instruction": "Write a greeting to {name} for a friend.", "input": "", "output": "Hello {name}, how are you?"},
    {"instruction": "Add the two numbers and give the sum.", "input": "17, 25", "output": "42"},
    {
        "instruction": "Describe the weather of a day in spring.",
        "input": "",
        "output": "The sun shines and birds sing.",
    },
]
CHINESE = {
    "Name the longest river of Africa.": "说出非洲最长的河流。",
    "The Nile is 6,650 km long.": "尼罗河长 6650 公里。",
    "Explain what `pip list` does.": "解释 `pip list` 的作用。",
    "pip list": "软件包清单",
    "It lists packages.": "它列出软件包。",
    "Tell whether the review is good or bad.": "判断这条评论是好评还是差评。",
    "I love this film.": "我喜欢这部电影。",
    "Good": "好评",
    "Write a greeting to {name} for a friend.": "替朋友给 {name} 写一句问候。",
    "Hello {name}, how are you?": "你好，{name}，最近怎么样？",
    "Add the two numbers and give the sum.": "把两个数相加，给出它们的和。",
    "Describe the weather of a day in spring.": "描述春天里一天的天气。",
    "The sun shines and birds sing.": "阳光明媚，鸟儿歌唱。",
}
POLISHED = {
    "The Nile is 6,650 km long.": "At 6,650 km, the Nile is the longest.",
    "It lists packages.": "It shows the packages that are installed.",
    "Good": "Good",
    "Hello {name}, how are you?": "Hello! How are you today?",
    "The sun shines and birds sing.": "The sun is shining and the birds are singing.",
}


class TableEngine(ScriptedEngine):
    """Looks up what it is asked to rewrite; what a table has as None is cut short."""

    def __init__(self, table: Mapping[str, str | None], **flags: int) -> None:
        super().__init__(**flags)
        self.table = table

    def _answer(self, request: Request) -> Completion:
        self.answered += 1
        text = self.table[rewritten_text(request)]
        reason = FinishReason.LENGTH if text is None else FinishReason.STOP
        return Completion(request.key, "" if text is None else f"\n{text}\n", reason, 10, 5)


def rewritten_text(request: Request) -> str:
    """The text that a request shows last, before the heading of its answer."""
    shown = request.turns[-1].content if request.turns else request.prompt.rpartition("\n\n### ")[0]
    return re.split(r"(?:^|\n)### [^\n]+\n", shown)[-1]


def make_source(folder: Path, records: list[dict[str, str]] | None = None) -> Path:
    file = folder.with_suffix(".json")
    file.write_bytes(orjson.dumps(TASKS if records is None else records))
    with RunStore(folder) as store:
        import_tasks(store, file)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


def rewrite(
    source: Path,
    into: Path,
    command: Command,
    engine: ScriptedEngine,
    *,
    to: Language | None = None,
    fraction: float = 1.0,
    **flags: object,
) -> Outcome:
    chosen = load_settings(GenerateSettings, None, {"window": 3, **flags})
    with RunStore(source, read_only=True) as old, RunStore(into) as new:
        rewriting = open_rewriting(new, old, command, chosen, MODEL, to=to, fraction=fraction)
        display = RunDisplay(stderr_console(), new.totals(), rewriting.settings.num)
        return run(new, rewriting.settings, [], lambda: engine, display, Interrupt(), work=rewriting.work)


def translate(source: Path, into: Path, table: Mapping[str, str | None] = CHINESE, **flags: object) -> Outcome:
    return rewrite(source, into, "translate", TableEngine(table), to="zh", **flags)  # type: ignore[arg-type]


def exported(folder: Path) -> list[dict[str, str]]:
    records: list[dict[str, str]] = orjson.loads((folder / EXPORT).read_bytes())
    return records


def candidates(folder: Path) -> list[Candidate]:
    with RunStore(folder, read_only=True) as store:
        return [each for job in store.ledger() for each in job.decided.candidates]


def verdict(
    tmp_path: Path, record: dict[str, str], table: Mapping[str, str | None], **flags: object
) -> tuple[str, str]:
    """Rule and detail for the one task of a run."""
    outcome = translate(make_source(tmp_path / "one", [record]), tmp_path / "new", table, **flags)
    assert outcome.reason == "done"
    (candidate,) = candidates(tmp_path / "new")
    return candidate.verdict.rule, candidate.verdict.detail


@pytest.mark.parametrize("prompt_format", ["chat", "completion"])
def test_translations_stand_beside_their_originals(source: Path, tmp_path: Path, prompt_format: str) -> None:
    before = exported_source(source)
    outcome = translate(source, tmp_path / "new", prompt_format=prompt_format)
    assert outcome.reason == "done"
    assert outcome.accepted == len(TASKS)
    records = exported(tmp_path / "new")
    assert records[: len(TASKS)] == TASKS
    expected = [{name: CHINESE.get(text, text) for name, text in record.items()} for record in TASKS]
    assert records[len(TASKS) :] == expected
    assert exported_source(source) == before == TASKS


def exported_source(folder: Path) -> list[dict[str, str]]:
    with RunStore(folder, read_only=True) as store:
        return [
            {"instruction": task.instruction, "input": task.input, "output": task.output} for task in store.accepted()
        ]


def test_a_lineage_names_the_source_and_the_command(source: Path, tmp_path: Path) -> None:
    translate(source, tmp_path / "new")
    with RunStore(tmp_path / "new", read_only=True) as store:
        inherited = {each.task.id: each for each in store.inherited()}
        own = list(store.accepted())[len(inherited) :]
        assert store.facts()["profile"] == "translate"
    for number, task in enumerate(own):
        assert task.lineage is not None
        assert task.lineage.profile == "translate"
        (name,) = task.lineage.demonstrations
        assert name == f"inherited-{number}"
        assert inherited[name].origin == {"run": str(source.resolve()), "id": f"inherited-{number}"}


def test_numbers_and_code_alone_are_not_asked_for(source: Path, tmp_path: Path) -> None:
    engine = TableEngine(CHINESE)
    rewrite(source, tmp_path / "new", "translate", engine, to="zh")
    asked = [rewritten_text(request) for request in engine.asked]
    assert "42" not in asked
    assert "17, 25" not in asked
    assert all(request.sampling.temperature == 0 for request in engine.asked)
    assert all(request.sampling.max_tokens < 200 for request in engine.asked)


def test_chinese_is_translated_to_english(tmp_path: Path) -> None:
    english = {chinese: text for text, chinese in CHINESE.items()}
    chinese = [{name: CHINESE.get(text, text) for name, text in record.items()} for record in TASKS]
    source = make_source(tmp_path / "zh", [*chinese, TASKS[0]])
    engine = TableEngine(english)
    outcome = rewrite(source, tmp_path / "new", "translate", engine, to="en")
    assert outcome.reason == "done"
    # The first is a task of the source already.
    rules = [each.verdict.rule for each in candidates(tmp_path / "new")]
    assert rules == ["not_novel", "", "", "", "", ""]
    (first, *_) = candidates(tmp_path / "new")
    assert first.neighbor_id == "inherited-6"


def test_polished_tasks_take_the_place_of_their_originals(source: Path, tmp_path: Path) -> None:
    outcome = rewrite(source, tmp_path / "new", "polish", TableEngine(POLISHED))
    assert outcome.reason == "done"
    records = exported(tmp_path / "new")
    assert [record["output"] for record in records] == [
        "At 6,650 km, the Nile is the longest.",
        "It shows the packages that are installed.",
        "Good",
        "Hello {name}, how are you?",
        "42",
        "The sun is shining and the birds are singing.",
    ]
    assert [record["instruction"] for record in records] == [record["instruction"] for record in TASKS]
    rules = [each.verdict.rule for each in candidates(tmp_path / "new")]
    assert rules == ["", "", "unchanged", "", "placeholder_changed", "", "unchanged", "", ""]
    with RunStore(tmp_path / "new", read_only=True) as store:
        lineages = [task.lineage for task in store.accepted()]
    assert [lineage.demonstrations for lineage in lineages if lineage] == [(f"source:inherited-{k}",) for k in range(6)]
    assert {lineage.profile for lineage in lineages if lineage} == {"polish"}


def test_what_is_not_chosen_stays(source: Path, tmp_path: Path) -> None:
    rewrite(source, tmp_path / "new", "polish", TableEngine(POLISHED), fraction=0.5)
    with RunStore(tmp_path / "new", read_only=True) as store:
        assert store.totals().inherited == 3
    records = exported(tmp_path / "new")
    assert sorted(record["instruction"] for record in records) == sorted(record["instruction"] for record in TASKS)


def test_polishing_keeps_the_language(tmp_path: Path) -> None:
    records = [{"instruction": "描述春天里一天的天气。", "input": "", "output": "阳光明媚，鸟儿歌唱。"}]
    source = make_source(tmp_path / "zh", records)
    engine = TableEngine({"阳光明媚，鸟儿歌唱。": "阳光灿烂，鸟儿欢唱。"})
    rewrite(source, tmp_path / "new", "polish", engine)
    assert exported(tmp_path / "new")[0]["output"] == "阳光灿烂，鸟儿欢唱。"
    assert "定稿" in engine.asked[0].prompt
    rewrite(source, tmp_path / "en", "polish", TableEngine({"阳光明媚，鸟儿歌唱。": "The sun shines."}))
    assert [each.verdict.rule for each in candidates(tmp_path / "en")] == ["not_translated", ""]
    assert exported(tmp_path / "en") == records


RIVER = {"instruction": "Name a long river of Africa.", "input": "", "output": "The Nile."}
GOOD = {"Name a long river of Africa.": "说出一条非洲的长河。", "The Nile.": "尼罗河。"}
BAD: dict[str, tuple[dict[str, str], dict[str, str | None]]] = {
    "code_changed": ({"output": "Run `ls`."}, {"Run `ls`.": "运行列表。"}),
    "numbers_changed": ({"output": "It has 2 arms."}, {"It has 2 arms.": "它有3条支流。"}),
    "placeholder_changed": ({"output": "It is {river}."}, {"It is {river}.": "它是{河}。"}),
    "not_translated": ({}, {"The Nile.": "The Nile."}),
    "truncated": ({}, {"The Nile.": None}),
    "length_changed": ({}, {"The Nile.": "尼罗河发源于东非高原，向北流，穿过许多国家，最后流进地中海。" * 3}),
    "lines_changed": ({}, {"The Nile.": "译文如下：\n尼罗河。"}),
    "about_language": ({"instruction": "Translate the name of a river."}, {}),
    "label_changed": ({"input": "The Nile. The Congo."}, {"The Nile. The Congo.": "尼罗。刚果。"}),
    "too_short": ({}, {"Name a long river of Africa.": "长河。"}),
    "output_is_instruction": ({}, {"The Nile.": "说出一条非洲的长河。"}),
}


@pytest.mark.parametrize("rule", BAD)
def test_what_does_not_survive_is_refused(rule: str, tmp_path: Path) -> None:
    changes, table = BAD[rule]
    found, detail = verdict(tmp_path, {**RIVER, **changes}, {**GOOD, **table})
    assert found == rule
    assert detail
    assert exported(tmp_path / "new") == [{**RIVER, **changes}]


def test_a_good_translation_passes_the_same_way(tmp_path: Path) -> None:
    assert verdict(tmp_path, RIVER, GOOD) == ("", "")


def test_an_empty_answer_is_unfinished(tmp_path: Path) -> None:
    rule, detail = verdict(tmp_path, RIVER, {**GOOD, "The Nile.": " "})
    assert (rule, detail.startswith("output: ")) == ("truncated", True)


def test_near_copies_among_the_translations_are_refused(tmp_path: Path) -> None:
    records = [RIVER, {**RIVER, "instruction": "Tell me a long river of Africa."}]
    table = {**GOOD, "Tell me a long river of Africa.": "请说出一条非洲的长河。"}
    translate(make_source(tmp_path / "two", records), tmp_path / "new", table)
    first, second = candidates(tmp_path / "new")
    assert first.verdict.keep
    assert second.verdict.rule == "not_novel"
    assert second.neighbor_id == "gen-0-0"


def test_a_translation_that_shares_code_with_its_original_is_novel(tmp_path: Path) -> None:
    code = "`SELECT name, age, town FROM people WHERE age > 20 AND town IN (SELECT town FROM towns)`"
    record = {"instruction": f"Explain {code}.", "input": "", "output": "It lists adults."}
    table = {record["instruction"]: f"请解释 {code}。", record["output"]: "它列出成年人。"}
    assert verdict(tmp_path, record, table) == ("", "")


@pytest.mark.parametrize("command", ["translate", "polish"])
def test_a_run_that_dies_again_and_again_ends_with_the_same_pool(
    source: Path, tmp_path: Path, command: Command
) -> None:
    table, to = (CHINESE, "zh") if command == "translate" else (POLISHED, None)
    rewrite(source, tmp_path / "straight", command, TableEngine(table), to=to)  # type: ignore[arg-type]
    keys, deaths = [], 0
    for attempt in range(100):
        engine = TableEngine(table, in_flight=1, order=attempt, die_after=1)
        try:
            rewrite(source, tmp_path / "killed", command, engine, to=to)  # type: ignore[arg-type]
            break
        except EngineDeadError:
            deaths += 1
            keys += [request.key for request in engine.asked[:-1]]
    assert deaths > 3
    assert len(set(keys)) == len(keys)
    assert exported(tmp_path / "killed") == exported(tmp_path / "straight")
    assert candidates(tmp_path / "killed") == candidates(tmp_path / "straight")


def test_a_finished_run_asks_nothing_more(source: Path, tmp_path: Path) -> None:
    translate(source, tmp_path / "new")
    before = (tmp_path / "new" / EXPORT).read_bytes()
    outcome = translate(source, tmp_path / "new", {})
    assert outcome.reason == "done"
    assert outcome.meter is None
    assert (tmp_path / "new" / EXPORT).read_bytes() == before


def test_a_start_that_was_killed_after_it_inherited_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "create", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            translate(source, tmp_path / "new")
    assert translate(source, tmp_path / "new").accepted == len(TASKS)


def test_every_request_may_be_answered_in_any_order(source: Path, tmp_path: Path) -> None:
    pools = set()
    for order in range(5):
        engine = TableEngine(CHINESE, in_flight=1 + order, order=order)
        rewrite(source, tmp_path / str(order), "translate", engine, to="zh")
        pools.add((tmp_path / str(order) / EXPORT).read_bytes())
    assert len(pools) == 1


def test_the_choice_depends_on_the_seed_alone(tmp_path: Path) -> None:
    generate(tmp_path / "generated", generating(num=30), ScriptedEngine())

    def choice(name: str, **flags: object) -> set[str]:
        into = tmp_path / name
        with RunStore(tmp_path / "generated", read_only=True) as old, RunStore(into) as new:
            settings = load_settings(GenerateSettings, None, flags)
            rewriting = open_rewriting(new, old, "translate", settings, MODEL, to="zh", fraction=0.4)
            assert isinstance(rewriting.work.profile.name, str)
            return {task.id for task in rewriting.work.profile._sources}  # type: ignore[attr-defined]

    first = choice("a", seed=1)
    assert len(first) == 12
    assert choice("b", seed=1) == first
    assert choice("c", seed=2) != first


def test_what_joined_the_source_later_is_left_alone(tmp_path: Path) -> None:
    generate(tmp_path / "generated", generating(num=5), ScriptedEngine())

    class Loud(TableEngine):
        def _answer(self, request: Request) -> Completion:
            self.answered += 1
            return Completion(request.key, "今天的天气很好。" + rewritten_text(request)[:5], FinishReason.STOP, 1, 1)

    with pytest.raises(EngineDeadError):
        rewrite(tmp_path / "generated", tmp_path / "new", "translate", Loud({}, die_after=2), to="zh")
    generate(tmp_path / "generated", generating(num=20), ScriptedEngine())
    assert rewrite(tmp_path / "generated", tmp_path / "new", "translate", Loud({}), to="zh").reason == "done"
    with RunStore(tmp_path / "new", read_only=True) as store:
        assert store.totals().inherited < 10


def test_other_settings_and_other_runs_are_refused(source: Path, tmp_path: Path) -> None:
    translate(source, tmp_path / "new")
    with pytest.raises(UsageError, match=r"--into .*new: .*fraction: 1.0 in the run, 0.5 now"):
        translate(source, tmp_path / "new", fraction=0.5)
    with pytest.raises(UsageError, match="profile: translate in the run, polish now"):
        rewrite(source, tmp_path / "new", "polish", TableEngine(POLISHED))
    other = make_source(tmp_path / "other", [RIVER])
    with pytest.raises(UsageError, match="source fingerprint"):
        translate(other, tmp_path / "new")
    with pytest.raises(UsageError, match=r"--into .*other: is already a run"):
        translate(source, other)
    generate(tmp_path / "generated", generating(num=3), ScriptedEngine())
    with pytest.raises(UsageError, match=r"--into .*generated: .*'selfinstruct generate'"):
        translate(source, tmp_path / "generated")
    with pytest.raises(UsageError, match=r"--fraction 0: .*above 0"):
        translate(source, tmp_path / "fresh", fraction=0)
    with pytest.raises(UsageError, match="no tasks to translate to en among its 6 accepted"):
        rewrite(source, tmp_path / "fresh", "translate", TableEngine({}), to="en")


@pytest.mark.parametrize("name", ["translate_zh", "translate_en", "polish", "polish_zh"])
def test_a_prompt_is_the_same_as_a_text_and_as_turns(name: str) -> None:
    prompt = RewritePrompt(load_prompt(name).template)
    text = prompt.text(task="TASK $x", text="TEXT {y}")
    turns = prompt.turns(task="TASK $x", text="TEXT {y}")
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    place = 0
    for turn in turns:
        place = text.index(turn.content, place) + len(turn.content)
    assert text.endswith(f"TEXT {{y}}\n\n{prompt.answer_heading}")
    assert "$text" not in text


def test_faults_on_the_command_line_are_one_line(source: Path, tmp_path: Path, cli: RunCli, bare_model: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.sqlite").write_bytes(b"no database at all, and long enough to be looked at" * 50)
    into = tmp_path / "new"
    for arguments, told in (
        (("polish", "--run", tmp_path / "nowhere", "--into", into), "nowhere: not a run (run.sqlite is missing)"),
        (("polish", "--run", tmp_path / "broken", "--into", into), "run.sqlite cannot be read"),
        (("polish", "--run", source, "--into", source), "is the source run"),
        (("translate", "--run", source, "--into", into, "--to", "fr"), "one of en, zh"),
        (("translate", "--run", source, "--into", into, "--to", "zh", "--prompt-format", "chat"), "no chat template"),
    ):
        done = cli(*arguments, "--model", bare_model)
        assert done.returncode == 2, done.stderr
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not into.exists()


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_the_embedded_model_polishes_and_translates(
    source: Path, tmp_path: Path, cli: RunCli, embedded_model: ModelFolder
) -> None:
    flags = ("--model", embedded_model.path, "--in-flight", 4, "--memory-gb", 1)
    for command, inherited in ((("polish",), 3), (("translate", "--to", "zh"), 6)):
        into = tmp_path / command[0]
        done = cli(*command, "--run", source, "--into", into, "--fraction", 0.5, *flags, timeout=550)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(into / EXPORT)
        with RunStore(into, read_only=True) as store:
            totals = store.totals()
            assert (totals.jobs, totals.inherited) == (3, inherited)
            assert all(job.decided.candidates for job in store.ledger())
            assert store.facts()["prompt_format"] == "chat"
        kept = [record for record in exported(into) if record in TASKS]
        assert len(kept) >= inherited
    out = tmp_path / "out.jsonl"
    assert cli("export", tmp_path / "polish", "--out", out, "--format", "regen").returncode == 0
    assert len(out.read_bytes().splitlines()) == len(TASKS)
    assert exported_source(source) == TASKS
