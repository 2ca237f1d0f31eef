"""What is learnt of a conversation is what the chat template writes for the assistant, family by family."""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer

from selfinstruct_local.models import ModelFolder
from selfinstruct_local.templates.conversation_labels import HIDDEN_ANSWER, ConversationEncoder, Encoded
from selfinstruct_local.templates.turns import Turn
from selfinstruct_local.train.audit import make_audit
from selfinstruct_local.train.data import build_examples
from selfinstruct_local.train.settings import TrainSettings
from selfinstruct_local.train.sources import TrainingSample
from tests.chat_families import FAMILIES, WORDS, Family, make_family

TALK = (Turn("user", "Name a river."), Turn("assistant", "The Nile."), Turn("user", "Two."), Turn("assistant", "Rhine"))


def encode(tokenizer: Any, turns: Sequence[Turn]) -> Encoded | str:
    (encoded,) = ConversationEncoder(tokenizer, "tiny").encode([turns])
    return encoded


def learnt_texts(tokenizer: Any, encoded: Encoded) -> list[str]:
    """The text of each run of learnt tokens; of the whole, since a run alone would lose the space before it."""
    texts, done = [], 0
    ids, learnt = encoded.ids, encoded.learnt
    for at in range(1, len(ids) + 1):
        if at == len(ids) or learnt[at] != learnt[at - 1]:
            text = tokenizer.decode(ids[:at])
            texts += [text[done:]] if learnt[at - 1] else []
            done = len(text)
    return texts


def draw_conversation(number: int, *, system: bool) -> list[Turn]:
    """One to four questions with answers that hold the spaces, breaks, signs and marks that answers may hold."""
    stream = random.Random(number)

    def text() -> str:
        words = stream.choices([*WORDS, "\n", "\n\n", "  ", "水为什么", "é", "😀", "- 1.", "</s>", "<|im_end|>"], k=12)
        around = stream.choice(["", "", "", "thoughts\n</think>\n\n"])
        # Words first and last: of spaces at the ends, templates and tokenizers make what they will.
        return f"{around}{stream.choice(WORDS)} {' '.join(words)} {stream.choice(WORDS)}"

    turns = [Turn("system", text())] if system else []
    for _ in range(stream.randint(1, 4)):
        turns += [Turn("user", text()), Turn("assistant", text())]
    return turns


def rendered_answers(family: Family, name: str, turns: Sequence[Turn]) -> list[str]:
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    if name in {"think", "open-think"}:
        shown = [answer.split("</think>")[-1].lstrip("\n") for answer in answers]
        answers = [*shown[:-1], answers[-1]] if name == "think" else shown
    return [f"{family.before}{answer}{family.after}" for answer in answers]


@pytest.mark.parametrize("system", [False, True], ids=["", "system"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_assistants_turns_are_learnt_as_one_rendering_writes_them(name: str, *, system: bool) -> None:
    family = make_family(name)
    encoder = ConversationEncoder(family.tokenizer, name)
    conversations = [draw_conversation(number, system=system) for number in range(50)]
    for turns, encoded in zip(conversations, encoder.encode(conversations), strict=True):
        assert isinstance(encoded, Encoded)
        assert learnt_texts(family.tokenizer, encoded) == rendered_answers(family, name, turns)
        last = max(at for at, learnt in enumerate(encoded.learnt) if learnt)
        assert family.tokenizer.convert_ids_to_tokens(encoded.ids[last]) == family.end_of_turn
        assert not encoded.merged
        # Without the texts of control tokens in it, transformers makes the very same tokens.
        if not any(mark in turn.content for turn in turns for mark in ("</s>", "<|im_end|>")):
            messages = [turn._asdict() for turn in turns]
            if system and not family.system:
                told, asked, *rest = messages
                messages = [{"role": "user", "content": f"{told['content']}\n\n{asked['content']}"}, *rest]
            assert encoded.ids == family.tokenizer.apply_chat_template(messages)["input_ids"]


@pytest.mark.parametrize("name", FAMILIES)
def test_control_tokens_in_an_answer_are_text(name: str) -> None:
    family = make_family(name)
    turns = [Turn("user", "How does a text end?"), Turn("assistant", f"By {family.end_of_turn} it ends")]
    encoded = encode(family.tokenizer, turns)
    assert isinstance(encoded, Encoded)
    end = family.tokenizer.convert_tokens_to_ids(family.end_of_turn)
    assert [at for at, token in enumerate(encoded.ids) if token == end and encoded.learnt[at]] == [
        max(at for at, learnt in enumerate(encoded.learnt) if learnt)
    ]


def test_spaces_that_a_template_strips_are_not_looked_for() -> None:
    for name in ("llama2", "gemma", "llama3"):
        family = make_family(name)
        encoded = encode(family.tokenizer, [Turn("user", " Hi "), Turn("assistant", "\n The Nile. \n")])
        assert isinstance(encoded, Encoded)
        assert learnt_texts(family.tokenizer, encoded) == [f"{family.before}The Nile.{family.after}"]


# --- against TRL's marked copies of real templates ------------------------------------------------------------------


def marked_template(name: str) -> str:
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}_training.jinja").read_text("utf-8")


@pytest.mark.parametrize(
    "name",
    ["cohere", "cohere2", "gemma", "gemma3", "glm4moe", "lfm2", "llama3", "phi3", "qwen3", "qwen3_instruct_2507"],
)
def test_the_marks_of_trl_agree(name: str, embedded_model: ModelFolder) -> None:
    """TRL learns the line break behind an end of turn too, which some templates write and no model has to."""
    tokenizer: Any = AutoTokenizer.from_pretrained(embedded_model.path)
    template = marked_template(name)
    special = re.findall(r"<\|[^|<>\s]+\|>|<\w+_of_\w+>", template)
    tokenizer.add_special_tokens(
        {"eos_token": "<eos>", "bos_token": "<bos>", "extra_special_tokens": sorted({*special})}
    )
    tokenizer.chat_template = template
    messages = [turn._asdict() for turn in TALK]
    marked = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    theirs = Encoded(marked["input_ids"], [bool(each) for each in marked["assistant_masks"]], 0)
    ours = encode(tokenizer, TALK)
    assert isinstance(ours, Encoded)
    wanted = [text.removesuffix("<eos>").rstrip("\n") for text in learnt_texts(tokenizer, theirs)]
    assert learnt_texts(tokenizer, ours) == wanted
    assert ours.ids[: len(theirs.ids)] == theirs.ids


# --- what templates do besides --------------------------------------------------------------------------------------


def test_a_template_that_writes_no_end_gets_the_tokenizers() -> None:
    tokenizer = make_family("zephyr").tokenizer
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '\n\n### ' + m['role'] + ':\n' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n\n### assistant:\n' }}{% endif %}"
    )
    encoded = encode(tokenizer, TALK)
    assert isinstance(encoded, Encoded)
    assert learnt_texts(tokenizer, encoded) == ["The Nile.", "Rhine</s>"]
    assert ConversationEncoder(tokenizer, "tiny").turn_end is None


def test_a_header_is_no_end_of_turn() -> None:
    """Where turns end only by the next one's header, and where the last turn ends by another token than the rest."""
    tokenizer = make_family("qwen3").tokenizer
    header = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    ask = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    tokenizer.chat_template = "{% for m in messages %}" + header + "{% endfor %}" + ask
    endless = encode(tokenizer, TALK)
    assert isinstance(endless, Encoded)
    assert learnt_texts(tokenizer, endless) == ["The Nile.", "Rhine<|im_end|>"]
    tokenizer.chat_template = (
        "{% for m in messages %}" + header + "{{ '<|endoftext|>' if loop.last and m['role'] == 'assistant' "
        "else '<|im_end|>' }}{% endfor %}" + ask
    )
    encoded = encode(tokenizer, TALK)
    assert isinstance(encoded, Encoded)
    assert learnt_texts(tokenizer, encoded) == ["The Nile.<|im_end|>", "Rhine<|endoftext|>"]


def test_a_conversation_that_a_template_refuses_is_dropped_with_the_reason() -> None:
    family = make_family("gemma")
    twice = [Turn("user", "Hi"), Turn("user", "Hello?"), Turn("assistant", "Yes")]
    good, bad = ConversationEncoder(family.tokenizer, "tiny").encode([TALK, twice])
    assert isinstance(good, Encoded)
    assert isinstance(bad, str)
    assert "user and assistant take turns" in bad


def test_a_template_that_hides_answers_is_of_no_use() -> None:
    tokenizer = make_family("qwen3").tokenizer
    tokenizer.chat_template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    assert encode(tokenizer, TALK) == HIDDEN_ANSWER


def test_an_answer_that_merges_with_its_prompt_is_counted(embedded_model: ModelFolder) -> None:
    """Line breaks before the answer become one token with that of the header."""
    tokenizer: Any = AutoTokenizer.from_pretrained(embedded_model.path)
    samples = [TrainingSample((Turn("user", "Hi"), Turn("assistant", answer))) for answer in ("\n\nYes", "No")]
    settings = TrainSettings(template="chat")
    audit = make_audit(build_examples(samples, tokenizer, settings), tokenizer, "chat")
    assert tokenizer.encode("\n\n")[0] in build_examples(samples, tokenizer, settings).examples[0].labels
    assert (audit.examples, audit.merged, audit.endless) == (2, 1, 0)


def test_a_cut_answer_ends_as_its_turn_does() -> None:
    for name in ("gemma", "phi3", "llama3", "qwen2.5-base"):
        family = make_family(name)
        sample = TrainingSample((Turn("user", "Hi"), Turn("assistant", "river " * 200)))
        settings = TrainSettings(template="chat", max_length=64, overlong="truncate")
        data = build_examples([sample], family.tokenizer, settings)
        (example,) = data.examples
        assert (len(example.input_ids), example.truncated) == (64, True)
        assert family.tokenizer.convert_ids_to_tokens(example.labels[-1]) == family.end_of_turn
        make_audit(data, family.tokenizer, "chat").check(settings)
