"""Fuzzes what reads bytes from outside, guided by coverage: tasks, seeds, settings, model folders, completions.

The property: a reader gives records or raises the error that it documents, and what it gave can be written and read
again. By hand: `python tests/fuzz/fuzz_readers.py -max_total_time=600`; the flags are libFuzzer's, and an input that
fails is kept in the folder that is named at the end. `test_fuzz_readers.py` runs it for a few seconds. The first byte
of an input chooses the reader.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

# Numba compiles the kernels from their bytecode, so they are loaded before the hook that changes it.
from selfinstruct_local import kernels  # noqa: E402, F401

with atheris.instrument_imports(include=["selfinstruct_local", "yaml"]):
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.engines import Completion, FinishReason, RequestKey
    from selfinstruct_local.errors import UsageError, UserFacingError
    from selfinstruct_local.generate.create import read_seeds
    from selfinstruct_local.generate.parsing import json_tasks, published, questions, tasks
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.io.published_instances import parse_published_instances
    from selfinstruct_local.io.reader import read_rows
    from selfinstruct_local.io.writer import open_writer
    from selfinstruct_local.models import check_model_folder
    from selfinstruct_local.seedfiles.check import check_seeds
    from selfinstruct_local.seedfiles.convert import import_seeds
    from selfinstruct_local.train.settings import load_train_settings
    from selfinstruct_local.train.sources import read_samples

REASONS = tuple(FinishReason)
PLACE = Path(tempfile.mkdtemp(prefix="fuzz-readers-"))


def put(name: str, data: bytes) -> Path:
    path = PLACE / name
    path.write_bytes(data)
    return path


def tasks_of(path: Path) -> None:
    """A file of tasks, read whole and read past what is broken, and written and read again."""
    try:
        rows = list(read_rows(path))
    except UsageError:
        rows = None
    skipped: list[str] = []
    try:
        passed = list(read_rows(path, skipped=skipped))
    except UsageError:
        return
    if rows is not None and (rows != passed or skipped):
        message = "read otherwise when bad lines are passed over"
        raise AssertionError(message)
    if rows is None and not skipped:
        message = "broken, and nothing was said of it"
        raise AssertionError(message)
    again = PLACE / "again.jsonl"
    with open_writer(again) as writer:
        for row in passed:
            writer.write(row.record)
    if [row.task for row in read_rows(again)] != [row.task for row in passed]:
        message = "other tasks when written and read again"
        raise AssertionError(message)


def lines(data: bytes) -> None:
    tasks_of(put("in.jsonl", data))


def array(data: bytes) -> None:
    tasks_of(put("in.json", b"[" + data + b"]"))


def samples(data: bytes) -> None:
    list(read_samples(put("samples.jsonl", data)))


def seeds(data: bytes) -> None:
    path = put("seeds.jsonl", data)
    for use in (lambda: read_seeds([path]), lambda: "\n".join(check_seeds(path).lines()).encode()):
        try:
            use()
        except UsageError:
            continue


def imported(data: bytes) -> None:
    path = put("list.txt", data)
    import_seeds(path, PLACE / "seeds-out.jsonl", bare=True)
    read_seeds_again = [row.task.instruction for row in read_rows(PLACE / "seeds-out.jsonl")]
    if not read_seeds_again:
        message = "imported, and nothing is there"
        raise AssertionError(message)


def settings(data: bytes) -> None:
    path = put("c.yaml", data)
    for load in (lambda: load_settings(GenerateSettings, path, {}), lambda: load_train_settings(None, path, {})):
        try:
            chosen: Any = load()
        except UsageError:
            continue
        chosen.model_dump_json()


def model(data: bytes) -> None:
    """config.json, then tokenizer_config.json and the index of the weights, each after a line feed."""
    folder = PLACE / "model"
    folder.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes(b"{}")
    parts = data.split(b"\n", 2)
    for name, part in zip(
        ("config.json", "tokenizer_config.json", "model.safetensors.index.json"), (*parts, b"{}", b"{}"), strict=False
    ):
        (folder / name).write_bytes(part)
    _ = check_model_folder(folder).has_chat_template


def completions(data: bytes) -> None:
    """Every parser; what each makes of any text can be encoded and kept."""
    reason = REASONS[data[0] % len(REASONS)] if data else FinishReason.STOP
    # As a server's JSON may spell it: halves of pairs and all.
    text = data[1:].decode("utf-8", "replace").replace("\ufffd", "\ud800")
    read = Completion(RequestKey(0, "tasks", 0), text, reason, 10, 10)
    found = [
        *tasks.parse_task_blocks(read),
        question := questions.read_question(read, "Name"),
        *json_tasks.parse_task_objects(read),
        *published.parse_published_blocks(read, 4),
        *published.parse_published_list(read),
    ]
    for is_label in (False, True):
        parse_published_instances(read.text, is_classification=is_label, most=3)
    if not question.rule:
        found.append(questions.with_input(question, read))
    published.parse_published_yes_no(read)
    for each in map(tasks.presentable, found):
        for part in (each.task.instruction, each.detail, *(text for case in each.task.instances for text in case)):
            part.encode()


READERS: tuple[Callable[[bytes], None], ...] = (lines, array, samples, seeds, imported, settings, model, completions)

BEGINNINGS: dict[Callable[[bytes], None], tuple[bytes, ...]] = {
    lines: (
        b'{"instruction": "Name a river", "input": "", "output": "Nile"}\n{"instruction": "a", "output": 1e999}\n',
        b'\xef\xbb\xbf{"id": 1, "instruction": "a", "instances": [{"output": "x"}], "k": 1, "k": [NaN]}\r\n',
        b'{"instruction": "\\ud800\\u003a\\u00e9"}\n{"instruction": "caf\xe9"}\n[[[{"a":{"b":[null,true]}}]]]\n',
    ),
    array: (
        b'{"instruction": "a", "output": "b: c"}, {"instruction": "\\u003a", "k" : 1, "k" : 2}, 7, "x"',
        b'{"instruction": "a"},\n{"instruction": "b", "deep": ' + b"[" * 210 + b"]" * 210 + b"}",
    ),
    samples: (
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
        b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}\n',
        b'{"prompt": "a", "completion": "b"}\n{"prompt": [], "completion": []}\n',
    ),
    seeds: (
        b'{"id": "s", "name": "n", "instruction": "Name a river", "category": "c", "verb": "name", "instances": '
        b'[{"input": "", "output": "Nile"}], "is_classification": false}\n' * 3,
        '{"instruction": "写一首诗。", "input": "", "output": "好的。\\u202e"}\n'.encode() * 4,
    ),
    imported: (b"1. Name a river\n- Sort the words\n\n\xef\xbb\xbf", b'{"instruction": "a", "output": "b"}\n'),
    settings: (
        b"num: 5\nthreshold: 0.6\nengine:\n  in_flight: 3\n  endpoint: [http://127.0.0.1:1/v1]\ntopics: [a, b]\n",
        b"lora_r: 4\nlearning_rate: 1e-4\nlora_targets: [q_proj]\nmax_steps: -1\n",
        b"a: &a {b: *a}\n<<: *a\n? [x]\n: !!python/name:os.system\nnum: 2001-99-99\nminutes: .nan\n",
    ),
    model: (
        b'{"architectures": ["L"], "max_position_embeddings": 9}\n{"chat_template": "x"}\n{"weight_map": {"a": "b"}}',
        b'{"architectures": ["L"], "auto_map": {}}\n{}\n{"weight_map": {"a": "model.safetensors", "b": "../x"}}',
    ),
    completions: (
        b"\x00 Name a river\nInput: none\nOutput: Nile\n\n### Task 5\nInstruction: Sort\n2. Input: a\nOutput: b ### c",
        b'\x01[{"instruction": "a", "input": "", "output": "b"}, {"instruction": "c"',
        "\x00 写一首诗\n输入：无\n输出：好\n### 任务 5\n指令：列出三种茶".encode(),
    ),
}
# libFuzzer's dictionary: what is put together at random more often than its single characters are.
TOKENS = (
    r'"\"instruction\"" "\"input\"" "\"output\"" "\"instances\"" "\"messages\"" "\"auto_map\"" "\\ud800" "\\u003a" '
    r'"1e999" "NaN" "### Task 4" "Instruction:" "Output:" "Input:" "Thanks! " "```" "\x0a" "\xef\xbb\xbf" '
    r'"threshold:" "engine:" "!!python/object:x" ".nan" "&a" "*a" "<<:" "[[" "]]"'
)


def test_one(data: bytes) -> None:
    """One input; what escapes that is no error for the user is a finding."""
    if not data:
        return
    try:
        READERS[data[0] % len(READERS)](data[1:])
    except UserFacingError as error:
        if len(str(error).splitlines()) > 1:
            raise


def main() -> None:
    """Writes the inputs to begin with, and hands over to libFuzzer."""
    corpus = PLACE / "corpus"
    corpus.mkdir()
    for number, reader in enumerate(READERS):
        for position, beginning in enumerate(BEGINNINGS[reader]):
            (corpus / f"{number}-{position}").write_bytes(bytes([number]) + beginning)
    words = put("tokens.dict", re.sub(r'" "', '"\n"', TOKENS).encode())
    flags = [f"-dict={words}", f"-artifact_prefix={PLACE}/", "-max_len=2048", "-timeout=20", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *flags, *sys.argv[1:], str(corpus)], test_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
