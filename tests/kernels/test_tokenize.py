"""Tokenizers: `rouge` bit for bit google's, `unicode` the same on ASCII and sighted beyond."""

import itertools
import re
import sys
import unicodedata
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct_local.kernels import NoTokensWarning, Vocabulary, encode
from selfinstruct_local.kernels.tokenize import nfc
from tests.kernels import oracles

EDGES = [
    "", " ", "a", "A-b_c", "don't stop", "x" * 1000, "\x00a\x00", "a\nb\u2028c\u0085d", "5kg", "5\u212ag", "\u212a",
    "\u0130stanbul", "a\u0130b", "\u0130\u0130", "STRASSE \u1e9e ß", "\u03a3\u03a3", "é e\u0301 E", "ﬁne", "Ａ１", "²x",
    "中a文b",    "\U0001f600a", "\ufeffbom", "na\u00efve", "\u0131I", "\u017ft",
]  # fmt: skip


def rows(texts: list[str], tokenizer: str = "rouge") -> list[list[str]]:
    """Tokens of each text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTokensWarning)
        encoded = encode(texts, tokenizer)  # type: ignore[arg-type]
    return [encoded.row(i) for i in range(len(encoded))]


def test_edges_match_rouge_score_alone_and_in_a_batch() -> None:
    expected = [oracles.tokenize(text) for text in EDGES]
    assert rows(EDGES) == expected
    assert [rows([text])[0] for text in EDGES] == expected


def test_every_code_point_lowers_as_rouge_score_does() -> None:
    """Only U+0130 and U+212A give an ASCII letter from beyond ASCII; both are spelled out by the tokenizer."""
    points = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]
    giving = [c for c in points if ord(c) > 127 and any(x.isascii() and x.isalnum() for x in c.lower())]
    assert giving == ["\u0130", "\u212a"]
    for start in range(0, len(points), 4096):
        texts = ["x" + c + "y" for c in points[start : start + 4096]]
        if start < 0x3000 or oracles.SOAK:
            assert rows(texts) == [oracles.tokenize(text) for text in texts]


@settings(max_examples=5000 if oracles.SOAK else 400, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=5))
def test_hypothesis_text(texts: list[str]) -> None:
    assert rows(texts) == [oracles.tokenize(text) for text in texts]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=60), max_size=5))
def test_unicode_is_rouge_on_ascii(texts: list[str]) -> None:
    assert rows(texts, "unicode") == [oracles.tokenize(text) for text in texts]


@settings(max_examples=400, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_unicode_sees_nfc_and_nfd_as_one(text: str) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    a, b = rows(forms, "unicode")
    assert a == b


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("把句子翻译成英文。", list("把句子翻译成英文")),
        ("GPT模型3个", ["gpt", "模", "型", "3", "个"]),
        ("ひらがなカナ", list("ひらがなカナ")),
        ("か\u3099", ["が"]),
        ("안녕 하세요", list("안녕하세요")),
        ("\u1112\u1161\u11ab글", ["한", "글"]),
        ("Привет, МИР!", ["привет", "мир"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("กี่ab", ["กี่", "ab"]),
        ("Hello 😀👩‍👩‍👧 world", ["hello", "world"]),
        ("e\u0301te\u0301 ÉTÉ", ["été", "été"]),
        ("soft\u00adhyphen zero\u200bwidth", ["softhyphen", "zero", "width"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("5\u212a K", ["5k", "k"]),
        ("1\ufe0f\u20e3 \u0301x", ["1", "x"]),
        ("😀", []),
    ],
)
def test_unicode_words(text: str, tokens: list[str]) -> None:
    assert rows([text], "unicode") == [tokens]


def test_blocks_and_growth_keep_ids_consistent() -> None:
    texts = [f"w{i} w{i // 2} shared é{i % 7}" for i in range(20_000)]
    encoded = encode(texts, "unicode")
    for i in (0, 1, 8191, 8192, 19_999):
        assert encoded.row(i) == [f"w{i}", f"w{i // 2}", "shared", f"é{i % 7}"]
    again = encode(texts[::-1], "unicode", encoded.vocabulary)
    assert again.row(0) == encoded.row(19_999)
    assert len(encoded.vocabulary) == 20_000 + 1 + 7
    block = encoded.block(8190, 8195)
    assert [block.row(i) for i in range(5)] == [encoded.row(8190 + i) for i in range(5)]


def test_one_long_token_grows_the_arena() -> None:
    long = "z" * 200_000
    assert rows([long, "b " + long]) == [[long], ["b", long]]


def test_bad_input_names_the_text() -> None:
    with pytest.raises(ValueError, match=r"text 2 holds a lone surrogate \(U\+D800\)"):
        encode(["a", "b", "c\ud800"])
    with pytest.raises(ValueError, match="text 0 holds a lone surrogate"):
        encode(["\udfff"], "unicode")
    with pytest.raises(TypeError, match="text 1 is NoneType"):
        encode(["a", None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="text 1 is bytes"):
        encode(["a", b"b"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="not one str"):
        encode("abc")
    with pytest.raises(ValueError, match="tokenizer must be one of"):
        encode(["a"], "words")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vocabulary is of tokenizer"):
        encode(["a"], "unicode", Vocabulary("rouge"))


def test_the_parity_tokenizer_says_what_it_cannot_see() -> None:
    with pytest.warns(NoTokensWarning, match="2 of 4 texts"):
        encode(["把句子翻译成英文", "Привет", "plain", "..."])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(["把句子翻译成英文"], "unicode")


MARKS = st.sampled_from([c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(c)])


@given(st.lists(st.tuples(st.text(max_size=3), st.lists(MARKS, max_size=80).map("".join)), max_size=4))
def test_nfc_is_that_of_unicodedata_however_many_marks_follow_each_other(parts: list[tuple[str, str]]) -> None:
    text = "".join(itertools.chain.from_iterable(parts))
    assert nfc(text) == unicodedata.normalize("NFC", text)


def test_marks_are_no_word_characters() -> None:
    marks = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(c))
    assert re.fullmatch(r"[^\w\s]+", marks)
