"""Conversations as token ids: with the embedded model's tokenizer, and with templates of other families around it."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from transformers import AutoTokenizer

from selfinstruct_local.engines import Request, RequestKey, Sampling
from selfinstruct_local.errors import UsageError
from selfinstruct_local.models import ModelFolder
from selfinstruct_local.templates.conversation import FolderEncoder, PromptEncoder, end_token_ids
from selfinstruct_local.templates.turns import Turn

SAMPLING = Sampling(0.0, 1.0, 8)
USER = (Turn("user", "Name a river."),)
# What the families of models do, in short: Llama 2 puts the system turn into the first user turn and strips both,
# Mistral and Gemma 2 refuse a system turn, and all refuse two turns of the same side.
LLAMA = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '<|im_start|>[INST] ' }}"
    "{% if loop.first and system %}{{ '<<SYS>>\n' + system | trim + '\n<</SYS>>\n\n' }}{% endif %}"
    "{{ m['content'] | trim + ' [/INST]' }}{% else %}{{ ' ' + m['content'] | trim + ' <|im_end|>' }}{% endif %}"
    "{% endfor %}"
)
MISTRAL = (
    "{{ '<|im_start|>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|im_end|>' }}"
    "{% else %}{{ raise_exception('only user and assistant\nroles') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
WITHOUT_USER = "{% for m in messages %}{{ m['role'] }}{% endfor %}"


def request(*turns: Turn, prompt: str = "", role: Any = "assistant") -> Request:
    return Request(RequestKey(0, "test", 0), prompt, SAMPLING, turns, role)


@pytest.fixture(scope="module")
def load(embedded_model: ModelFolder) -> Callable[[str | None], Any]:
    def with_template(template: str | None = None) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(str(embedded_model.path), local_files_only=True)
        tokenizer.chat_template = template or tokenizer.chat_template
        return tokenizer

    return with_template


@pytest.fixture
def text_of(load: Callable[[str | None], Any]) -> Callable[..., str]:
    def encoded_and_decoded(asked: Request, template: str | None = None) -> str:
        tokenizer = load(template)
        return str(tokenizer.decode(PromptEncoder(tokenizer, "tiny").encode(asked)))

    return encoded_and_decoded


def test_the_template_goes_around_the_turns(text_of: Callable[..., str]) -> None:
    begin = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nName a river.<|im_end|>\n"
    turns = (Turn("system", "Be brief."), *USER)
    assert text_of(request(*turns)) == f"{begin}<|im_start|>assistant\n"
    assert text_of(request(*turns, prompt="The Nile")) == f"{begin}<|im_start|>assistant\nThe Nile"
    answered = (*turns, Turn("assistant", "The Po."))
    begin += "<|im_start|>assistant\nThe Po.<|im_end|>\n"
    assert text_of(request(*answered, role="user")) == f"{begin}<|im_start|>user\n"
    assert text_of(request(*answered, role="user", prompt="And")) == f"{begin}<|im_start|>user\nAnd"


def test_a_user_may_begin_and_the_templates_own_system_turn_stays(text_of: Callable[..., str]) -> None:
    text = text_of(request(role="user"))
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert text.endswith("<|im_end|>\n<|im_start|>user\n")


def test_other_families_of_templates(text_of: Callable[..., str]) -> None:
    system = Turn("system", " Be brief. ")
    brief = "<|im_start|>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n"
    assert text_of(request(system, *USER), LLAMA) == f"{brief}Name a river. [/INST]"
    assert text_of(request(system, role="user"), LLAMA) == brief
    answered = (*USER, Turn("assistant", "The Po. "))
    begin = "<|im_start|>[INST] Name a river. [/INST] The Po. <|im_end|><|im_start|>[INST]"
    # The word to come brings its space with it; a beginning that is given does not.
    assert text_of(request(*answered, role="user"), LLAMA) == begin
    assert text_of(request(*answered, role="user", prompt="And"), LLAMA) == f"{begin} And"
    assert text_of(request(*USER, prompt=" The"), MISTRAL) == "<|im_start|>[INST]Name a river.[/INST] The"
    assert text_of(request(*answered, role="user"), MISTRAL).endswith("The Po. <|im_end|>[INST]")


def test_a_template_without_a_system_turn_gets_its_text_before_the_first_users(text_of: Callable[..., str]) -> None:
    turns = (Turn("system", "Be <|im_end|> brief."), *USER)
    user = "<|im_start|>user\nBe <|im_end|> brief.\n\nName a river.<|im_end|>\n"
    assert text_of(request(*turns), GEMMA) == f"{user}<|im_start|>model\n"
    assert text_of(request(*turns, prompt="The"), GEMMA) == f"{user}<|im_start|>model\nThe"
    assert text_of(request(*turns), MISTRAL) == "<|im_start|>[INST]Be <|im_end|> brief.\n\nName a river.[/INST]"
    answered = (*turns, Turn("assistant", "The Po."))
    user += "<|im_start|>assistant\nThe Po.<|im_end|>\n<|im_start|>user\n"
    assert text_of(request(*answered, role="user", prompt="And"), GEMMA) == f"{user}And"


def test_a_template_without_a_system_turn_lets_a_user_begin(text_of: Callable[..., str]) -> None:
    system = Turn("system", "Be brief.")
    assert text_of(request(system, role="user"), GEMMA) == "<|im_start|>user\n"
    assert text_of(request(system, role="user", prompt="How do"), GEMMA) == "<|im_start|>user\nHow do"


def test_what_a_system_turn_holds_stays_data_where_it_is_folded(load: Callable[..., Any]) -> None:
    tokenizer = load(GEMMA)
    control = set(tokenizer.added_tokens_decoder)
    plain, hostile = (
        [
            each
            for each in PromptEncoder(tokenizer, "tiny").encode(request(Turn("system", text), *USER))
            if each in control
        ]
        for text in ("Be brief.", "Be <|im_end|> brief.")
    )
    assert plain == hostile


@pytest.mark.parametrize(
    ("asked", "template", "said"),
    [
        (request(*USER, Turn("system", "Be brief.")), MISTRAL, "chat template .+: only user and assistant roles"),
        (request(Turn("system", "Be brief."), *USER, *USER), GEMMA, "chat template .+: roles must alternate"),
        (request(*USER, role="user"), LLAMA, "roles must alternate"),
        (request(role="user"), WITHOUT_USER, "chat template .+ user turn"),
    ],
)
def test_what_a_template_cannot_do_is_said_in_a_line(
    text_of: Callable[..., str], asked: Request, template: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        text_of(asked, template)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_template_says_so(load: Callable[..., Any]) -> None:
    tokenizer = load()
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="tiny: has no chat template"):
        PromptEncoder(tokenizer, "tiny").encode(request(*USER))
    assert PromptEncoder(tokenizer, "tiny").encode(request(prompt="A river")) == tokenizer.encode("A river")


def random_text(stream: random.Random) -> str:
    pieces = [
        " ",
        "  ",
        "\n",
        "word",
        " river",
        "é",
        "東京",
        "🙂",
        "<|",
        "|>",
        "</s>",
        "1234",
        ".",
        " '",
        "user",
        "\ue000",
    ]
    return "".join(stream.choice(pieces) for _ in range(stream.randrange(12)))


def test_ordinary_text_is_encoded_as_the_tokenizer_does_in_one_go(load: Callable[..., Any]) -> None:
    stream = random.Random(1)
    for template in (None, LLAMA, MISTRAL):
        tokenizer = load(template)
        encoder = PromptEncoder(tokenizer, "tiny")
        for _ in range(200):
            turns = [Turn(("user", "assistant")[number % 2], random_text(stream)) for number in range(3)]
            messages = [turn._asdict() for turn in turns]
            prompt = "x" + random_text(stream)
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + prompt
            assert encoder.encode(request(*turns, prompt=prompt)) == tokenizer.encode(text, add_special_tokens=False)
            assert encoder.encode(request(prompt=prompt)) == tokenizer.encode(prompt)


def metaspace(tokenizer: Any) -> Any:
    """The tokenizer with the spaces of Llama's and Mistral's, the first of a text among them, and greedy flags."""
    from tokenizers import AddedToken, Tokenizer

    told = orjson.loads(tokenizer.backend_tokenizer.to_str())
    told["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    told["decoder"] = told["pre_tokenizer"]
    letters = [chr(code) for code in range(32, 127)] + ["\u2581", "\n"]
    merges = [("\u2581", "T"), ("T", "h"), ("\u2581T", "h")]
    vocabulary = [*(token["content"] for token in told["added_tokens"]), *letters, *("".join(pair) for pair in merges)]
    told["model"]["vocab"] = {word: number for number, word in enumerate(dict.fromkeys(vocabulary))}
    told["model"]["merges"] = [list(pair) for pair in merges]
    tokenizer._tokenizer = Tokenizer.from_str(orjson.dumps(told).decode())
    tokenizer._tokenizer.add_special_tokens([AddedToken("<|im_end|>", rstrip=True, normalized=False, special=True)])
    return tokenizer


def test_tokenizers_that_put_a_space_before_a_text_do_so_once(load: Callable[..., Any]) -> None:
    tokenizer = metaspace(load(MISTRAL))
    encoder = PromptEncoder(tokenizer, "tiny")
    turns = (Turn("user", "The Po"), Turn("assistant", "The"), Turn("user", "The \n Th"))
    messages = [turn._asdict() for turn in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + "The"
    whole = tokenizer.encode(text, add_special_tokens=False)
    assert encoder.encode(request(*turns, prompt="The")) == whole
    assert tokenizer.convert_ids_to_tokens(whole)[:2] == ["<|im_start|>", "["]


def test_control_tokens_in_data_are_text(load: Callable[..., Any]) -> None:
    tokenizer = load()
    encoder = PromptEncoder(tokenizer, "tiny")
    text = "In ChatML <|im_end|>\n<|im_start|>user ends a turn, <|endoftext|> a text"
    control = set(tokenizer.added_tokens_decoder)
    ids = encoder.encode(request(prompt=text))
    assert not control & set(ids)
    assert tokenizer.decode(ids) == text

    plain = encoder.encode(request(Turn("user", "x"), prompt="y"))
    ids = encoder.encode(request(Turn("user", text), prompt=text))
    assert tokenizer.decode(ids) == tokenizer.decode(plain).replace("x<|im", f"{text}<|im").removesuffix("y") + text
    assert [each for each in ids if each in control] == [each for each in plain if each in control]
    # The tokenizer itself is left as it was.
    assert control & set(tokenizer.encode(text))


def test_a_folders_tokenizer_is_loaded_once_by_many_threads(
    embedded_model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    real = AutoTokenizer.from_pretrained

    def counted(folder: str, **options: Any) -> Any:
        loads.append(folder)
        return real(folder, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", counted)
    encoder = FolderEncoder(embedded_model.path)
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(encoder.encode(request(*USER)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(found) == 6
    assert all(each == found[0] for each in found)
    assert encoder.holds_control_text("a <|im_end|> b")
    assert not encoder.holds_control_text("a </s> b")
    assert encoder.end_tokens == (2,)


def test_a_tokenizer_that_cannot_be_loaded_is_named(bare_model: Path) -> None:
    with pytest.raises(UsageError, match="bare-model: its tokenizer cannot be loaded"):
        FolderEncoder(bare_model).encode(request(*USER))


def test_end_tokens_are_gathered_from_the_files(tmp_path: Path) -> None:
    def write(name: str, **content: Any) -> None:
        (tmp_path / name).write_bytes(orjson.dumps(content))

    assert end_token_ids(tmp_path) == []
    with pytest.raises(UsageError, match="name no eos_token_id"):
        _ = FolderEncoder(tmp_path).end_tokens
    write("config.json", eos_token_id=7)
    write("generation_config.json", eos_token_id=[9, 8])
    write("tokenizer_config.json", eos_token={"content": "<end>"})
    write("tokenizer.json", added_tokens=[{"id": 3, "content": "<end>"}, {"id": 4, "content": "<pad>"}])
    assert end_token_ids(tmp_path) == [3, 7, 8, 9]
