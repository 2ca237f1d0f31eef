"""`selfinstruct seeds check` and `import`, on our own files and on files with every kind of fault."""

from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from typer.testing import CliRunner

from selfinstruct_local.cli.seeds import app
from selfinstruct_local.errors import UserFacingError
from selfinstruct_local.generate.create import read_seeds
from selfinstruct_local.io.reader import read_tasks
from selfinstruct_local.seedfiles.check import check_seeds
from selfinstruct_local.seedfiles.text import PLACEHOLDER, cleaned, text_faults
from selfinstruct_local.seeds import seed_file

ROOT = Path(__file__).parents[1]
FABLES = [
    ("Name the animal that wins the race in the fable.", "The hare and the tortoise", "The tortoise"),
    ("Shorten this moral to ten words at most.", "Slow and steady always wins the race.", "Slow and steady wins."),
    ("Why did the fox call the grapes sour?", "", "Because it could not reach them."),
    ("Give the crow a better plan for its cheese.", "", "Swallow first, sing afterwards."),
]


class Done(NamedTuple):
    code: int
    out: str
    error: str


def seeds(*arguments: object) -> Done:
    """Runs `selfinstruct seeds ...`."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(result.exception, UserFacingError):
        return Done(result.exception.exit_code, result.stdout, str(result.exception))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def fables(**changes: Any) -> list[dict[str, Any]]:
    """Good seeds, the second of them changed; None takes a field out."""
    records: list[dict[str, Any]] = [
        {"id": f"f{number}", "instruction": instruction, "instances": [{"input": given, "output": output}]}
        for number, (instruction, given, output) in enumerate(FABLES, start=1)
    ]
    records[1] = {name: value for name, value in {**records[1], **changes}.items() if value is not None}
    return records


def write(path: Path, records: list[Any]) -> Path:
    """Writes records as JSON lines; bytes stand for themselves."""
    path.write_bytes(b"\n".join(each if isinstance(each, bytes) else orjson.dumps(each) for each in records) + b"\n")
    return path


# Our own files


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_our_seeds_have_neither_faults_nor_warnings(lang: str) -> None:
    done = seeds("check", seed_file(lang), "--strict", "--json")
    assert (done.code, done.error) == (0, "")
    found = orjson.loads(done.out)
    assert (found["lang"], found["faults"], found["warnings"]) == (lang, [], [])
    assert found["spread"]["seeds"] == 175
    assert len(found["spread"]["verbs"]) >= 60
    assert found["most_alike_openings"][1] <= 4
    assert found["nearest"]["score"] <= 0.5
    shortest, _, longest = found["spread"]["length"]
    assert (4 if lang == "en" else 8) <= shortest < longest <= (80 if lang == "en" else 120)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_tables_of_the_readme_are_what_the_command_prints(lang: str) -> None:
    done = seeds("check", seed_file(lang), "--markdown")
    assert done.code == 0
    assert done.out in (ROOT / "seeds" / "README.md").read_text(encoding="utf-8")


def test_the_table_of_a_terminal() -> None:
    lines = seeds("check", seed_file("en")).out.splitlines()
    assert lines[0].split() == ["seeds", "175"]
    assert ["code", "25"] in [line.split() for line in lines]


# A user's file


def test_only_instruction_and_output_must_be_there(tmp_path: Path) -> None:
    records = [{"instruction": instruction, "output": output} for instruction, _, output in FABLES]
    path = tmp_path / "seeds.json"
    path.write_bytes(orjson.dumps(records))
    done = seeds("check", path)
    assert (done.code, done.error) == (0, "")
    assert "empty input" in done.out
    assert "no seed has the field 'verb'" in done.out


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (fables(id="f1")[1], ":2: line 1 has the id 'f1' too; "),
        (fables(id=None)[1], ":2: has no id, "),
        (fables(verb=7)[1], ":2: the field 'verb' is not a string; "),
        (fables(instruction="")[1], ":2: the instruction is empty; "),
        (fables(instruction=FABLES[0][0].upper())[1], ":2: the instruction is a near copy of line 1 (ROUGE-L 1.00); "),
        (fables(instruction="Draw the fox and its grapes.")[1], ":2: the filter rule unsuitable_word rejects it ("),
        (fables(instruction="Hurry up, hare!")[1], ":2: the filter rule too_short rejects it (3 words, "),
        (fables(instances=[])[1], ":2: has no instance; "),
        (fables(instances=[{"output": " "}])[1], ":2: the output is empty; "),
        (fables(instances=[{"output": "a"}, {"output": ""}])[1], ":2: the output of instance 2 is empty; "),
        (fables(instances=[{"output": "TODO"}])[1], ":2: the output has the placeholder 'TODO'; "),
        (fables(instances=[{"output": "fine \nfine"}])[1], ":2: the output has trailing white space; "),
        (fables(instances=[{"output": "fine\n"}])[1], ":2: the output has trailing white space; "),
        (fables(instances=[{"output": "cafe\u0301"}])[1], ":2: the output is not in Unicode's composed form (NFC); "),
        (fables(instances=[{"input": "\x07", "output": "a"}])[1], ":2: the input has the invisible character U+0007; "),
        (fables(instances=[{"input": 3}])[1], ":2: field 'instances.0.input': input should be a valid string; "),
        (b'{"instruction": "torn', ":2: not JSON ("),
        (b'{"instruction": "caf\xe9"}', ":2: not UTF-8 at byte 20 ("),
        (b"[]", ":2: expected an object with an 'instruction', found a list; "),
    ],
)
def test_every_fault_is_one_line_and_fails(record: Any, line: str, tmp_path: Path) -> None:
    good = fables()
    path = write(tmp_path / "seeds.jsonl", [good[0], record, *good[2:]])
    done = seeds("check", path)
    assert done.code == 1
    assert done.error.startswith(f"{path}: 1 fault(s) in ")
    first, *rest = done.out.splitlines()
    assert first.startswith(f"{path}{line}")
    assert all(": warning: " in other for other in rest if other.startswith(str(path)))
    (fault,) = orjson.loads(seeds("check", path, "--json").out)["faults"]
    assert first == f"{path}:{fault['line']}: {fault['what']}; {fault['mend']}"


def test_warnings_alone_do_not_fail(tmp_path: Path) -> None:
    records = [
        {"instruction": f"Tell me a fable about {animal} in {count} lines.", "output": "Once."}
        for animal, count in (("a sly fox", "ten"), ("two geese", "some"), ("any owl", "six"), ("old cats", "few"))
    ]
    records += [{"instruction": "Tell me a short joke.\nMake it kind.", "output": "### Joke\nOutput: none"}]
    path = write(tmp_path / "seeds.jsonl", records)
    done = seeds("check", path)
    assert done.code == 0
    warnings = [line.removeprefix(f"{path}") for line in done.out.splitlines() if "warning: " in line]
    near, opening, lines, mark = warnings
    assert near.startswith(": warning: 6 pair(s) of instructions have a ROUGE-L above 0.5, ")
    assert "0.70" in near
    assert opening.startswith(": warning: 5 instructions begin with 'tell me a' (lines 1, 2, 3, 4, 5); ")
    assert lines.startswith(":5: warning: the instruction has several lines; ")
    assert mark.startswith(":5: warning: the output has '###', ")
    strict = seeds("check", path, "--strict")
    assert (strict.code, strict.error) == (1, f"{path}: 0 fault(s) and 4 warning(s) in 5 seeds")


def test_a_file_of_broken_records_names_each(tmp_path: Path) -> None:
    path = write(tmp_path / "seeds.jsonl", [b"{", b"7"])
    done = seeds("check", path)
    assert (done.code, done.error) == (1, f"{path}: 2 fault(s) in 0 seeds")
    path = tmp_path / "seeds.json"
    path.write_bytes(b'[{"instruction": "Name an old fable.", "output": ""}, 7]')
    done = seeds("check", path)
    assert [line.split(";")[0] for line in done.out.splitlines()[:2]] == [
        f"{path}: record 1: the output is empty",
        f"{path}: record 2: expected an object with an 'instruction', found a number",
    ]


def test_a_language_is_found_or_given(tmp_path: Path) -> None:
    chinese = [{"instruction": "用Python写一个sort函数，把名单排好。", "output": "好的。"}]
    path = write(tmp_path / "zh.jsonl", chinese)
    assert "characters per instruction" in seeds("check", path).out
    done = seeds("check", path, "--lang", "en")
    assert (done.code, "starts_with_non_ascii" in done.out) == (1, True)


def test_terminal_codes_in_the_data_are_shown_not_obeyed(tmp_path: Path) -> None:
    path = write(tmp_path / "seeds.jsonl", fables(verb="\x1b[31mred", id="\x1b[2J"))
    done = seeds("check", path)
    assert "\x1b" not in done.out
    assert "\\x1b[31mred" in done.out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("check", "{tmp}/none"), "none: no such file"),
        (("check", "{tmp}"), "is a folder"),
        (("check", "{good}", "--lang", "fr"), "use one of en, zh"),
        (("check", "{good}", "--json", "--markdown"), "--json --markdown: "),
        (("import", "{tmp}/none", "--out", "{tmp}/o"), "none: no such file"),
        (("import", "{tmp}/none.txt", "--out", "{tmp}/o"), "none.txt: no such file"),
        (("import", "{good}", "--out", "{good}"), "the command reads it too; name another file"),
        (("import", "{good}", "--out", "{tmp}/o", "--lang", "fr"), "use one of en, zh"),
        (("import", "{good}", "--out", "{good}/o"), "cannot be written to"),
        (("import", "{list}", "--out", "{tmp}/o"), "2 of 2 tasks have no output ("),
        (("import", "{empty}", "--out", "{tmp}/o"), "empty.txt: has no instructions; "),
        (("import", "{latin}", "--out", "{tmp}/o"), "latin.txt:2: not UTF-8 at byte 3"),
        (("import", "{torn}", "--out", "{tmp}/o"), "torn:1: not JSON"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(arguments: tuple[str, ...], wanted: str, tmp_path: Path) -> None:
    files = {"good": "good.jsonl", "list": "list.txt", "empty": "empty.txt", "latin": "latin.txt", "torn": "torn"}
    places = {name: tmp_path / file for name, file in files.items()}
    write(places["good"], fables())
    places["list"].write_text("Name a fable.\nRetell it briefly.\n")
    places["empty"].write_text("\n \n")
    places["latin"].write_bytes(b"Name a fable.\ncaf\xe9\n")
    places["torn"].write_text("{")
    done = seeds(*(each.format(tmp=tmp_path, **places) for each in arguments))
    assert done.code == 2
    assert wanted in done.error
    assert "\n" not in done.error
    assert not (tmp_path / "o").exists()


# Import


def test_the_published_seed_format_keeps_its_fields(tmp_path: Path) -> None:
    published = [
        {
            "id": f"seed_task_{number % 3}",
            "name": f"fable_{number}",
            "instruction": f"{instruction} ",
            "instances": [{"input": given, "output": f"{output}\r\nSo it ends.\r\n"}],
            "is_classification": number == 0,
            "source": {"page": number},
        }
        for number, (instruction, given, output) in enumerate(FABLES)
    ]
    out = tmp_path / "out.jsonl"
    done = seeds("import", write(tmp_path / "published.jsonl", published), "--out", out)
    assert (done.code, done.error) == (0, "")
    assert done.out.splitlines()[:2] == [
        f"read 4 Self-Instruct seeds: {tmp_path / 'published.jsonl'}",
        f"wrote 4 seeds, 1 new ids, 4 texts cleaned: {out}",
    ]
    records = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert [record["id"] for record in records] == ["seed_task_0", "seed_task_1", "seed_task_2", "published-004"]
    assert records[0] == {
        "id": "seed_task_0",
        "name": "fable_0",
        "instruction": FABLES[0][0],
        "instances": [{"input": FABLES[0][1], "output": f"{FABLES[0][2]}\nSo it ends."}],
        "is_classification": True,
        "source": {"page": 0},
    }


@pytest.mark.parametrize("array", [True, False])
def test_alpaca_records_become_seeds_that_a_run_takes(array: bool, tmp_path: Path) -> None:  # noqa: FBT001
    records = [dict(zip(("instruction", "input", "output"), fable, strict=True)) | {"tag": "t"} for fable in FABLES]
    source, out = tmp_path / "alpaca.json", tmp_path / "out.jsonl"
    source.write_bytes(orjson.dumps(records) if array else b"\n".join(map(orjson.dumps, records)))
    done = seeds("import", source, "--out", out)
    assert done.code == 0
    assert done.out.startswith("read 4 Alpaca records")
    first = orjson.loads(out.read_bytes().splitlines()[0])
    assert list(first) == ["id", "instruction", "instances", "tag"]
    tasks = read_seeds([out])
    assert [(task.instruction, task.input, task.output) for task in tasks] == FABLES
    assert [task.id for task in tasks] == [f"alpaca-00{number}" for number in range(1, 5)]


def test_a_second_instance_of_a_seed_belongs_into_its_record(tmp_path: Path) -> None:
    first, second = ({**fables()[0], "id": name} for name in ("a", "b"))
    (fault,) = check_seeds(write(tmp_path / "own.jsonl", [first, second])).faults
    assert (fault.line, "instances of line 1" in fault.mend) == (2, True)


def test_dolly_records_become_seeds(tmp_path: Path) -> None:
    fields = ("instruction", "context", "response")
    records: list[Any] = [{**dict(zip(fields, fable, strict=True)), "category": "t", "id": None} for fable in FABLES]
    out = tmp_path / "out.jsonl"
    done = seeds("import", write(tmp_path / "dolly.jsonl", records), "--out", out)
    assert done.code == 0
    assert list(orjson.loads(out.read_bytes().splitlines()[0])) == ["id", "instruction", "instances", "category"]
    assert [(task.instruction, task.input, task.output) for task in read_tasks(out)] == FABLES


def test_a_plain_list_is_written_bare_and_must_be_filled_in(tmp_path: Path) -> None:
    source, out = tmp_path / "list.txt", tmp_path / "out.jsonl"
    source.write_bytes(b"\xef\xbb\xbf1. Name an old fable.\r\n\n- Retell any fable in ten words.\n")
    done = seeds("import", source, "--out", out, "--bare")
    assert done.code == 3
    assert done.out.startswith(f"read 2 instructions of a plain list: {source}\n")
    assert done.error.startswith(f"{out}: 2 of 2 seeds have no output yet; ")
    assert [task.instruction for task in read_tasks(out)] == ["Name an old fable.", "Retell any fable in ten words."]
    faults = check_seeds(out).faults
    assert [(fault.line, fault.what) for fault in faults] == [(1, "the output is empty"), (2, "the output is empty")]


def test_json_lines_may_be_called_txt_and_faults_are_told(tmp_path: Path) -> None:
    source, out = tmp_path / "tasks.txt", tmp_path / "out.jsonl"
    write(source, [{"instruction": "Draw the fox and its grapes.", "output": "No."}])
    done = seeds("import", source, "--out", out)
    assert (done.code, done.error) == (1, f"{out}: 1 fault(s) in 1 seeds")
    assert len(read_tasks(out)) == 1


def test_no_new_id_takes_that_of_another(tmp_path: Path) -> None:
    records = [*fables(), fables()[0] | {"instruction": "Ask the owl one wise question."}]
    records[2]["id"], records[3]["id"] = "own-005", "own-010"
    out = tmp_path / "out.jsonl"
    seeds("import", write(tmp_path / "own.jsonl", records), "--out", out)
    assert [task.id for task in read_tasks(out)] == ["f1", "f2", "own-005", "own-010", "own-015"]


# Characters


@pytest.mark.parametrize(
    ("hit", "passed"),
    [
        ("TODO: write this", "Write a to-do list; todo apps help"),
        ("Size: XXX", "Size XXL, with love, xxx"),
        ("Lorem ipsum dolor", "The text is Latin"),
        ("Dear [insert name],", "See [1] and [INFO]"),
        ("<your answer>", "<input>"),
        ("your text here", "your text is here to stay"),
        ("placeholder text", "What is a placeholder in a form?"),
        ("此处填写姓名", "占位符是什么意思？"),
        ("先占位，明天再写", "他占了一个位子"),
        ("（待补充）", "这些意见有待补充"),
        ("XX公司全体员工", "某公司全体员工"),
        ("在此输入内容", "我在此谢过"),
    ],
)
def test_placeholders(hit: str, passed: str) -> None:
    assert PLACEHOLDER.search(hit)
    assert not PLACEHOLDER.search(passed)


def test_what_is_cleaned_has_no_fault_left() -> None:
    text = "  keep the indent \r\n\tand this\u3000\n\ncafe\u0301\n"
    assert cleaned(text) == "  keep the indent\n\tand this\n\ncafé"
    assert len(list(text_faults(text))) == 3
    assert not list(text_faults(cleaned(text)))
