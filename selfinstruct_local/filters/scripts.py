"""Language mixing: text in a script that the task does not call for.

Small multilingual models switch to another language in the middle of an output. Only scripts are distinguished, so a
French text passes in an English run.
"""

import re
from collections import Counter
from dataclasses import dataclass

from selfinstruct_local.languages.base import Language
from selfinstruct_local.task import Task

# Words by script. Han, kana and Thai are written without spaces and count one word per character. Greek counts from
# three letters, because fewer are symbols of a formula.
_WORDS = re.compile(
    "(?P<latin>[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a]+)"
    "|(?P<han>[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af])"
    "|(?P<kana>[\u3041-\u3096\u30a1-\u30fa])"
    "|(?P<hangul>[\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff]+)"
    "|(?P<cyrillic>[\u0400-\u052f]+)"
    "|(?P<greek>[\u0370-\u03ff\u1f00-\u1fff]{3,})"
    "|(?P<hebrew>[\u0590-\u05ff]+)"
    "|(?P<arabic>[\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff]+)"
    "|(?P<indic>[\u0900-\u0dff]+)"
    "|(?P<thai>[\u0e01-\u0eff])"
)
NATIVE: dict[Language, frozenset[str]] = {"en": frozenset({"latin"}), "zh": frozenset({"han"})}
# The number of words from which foreign words count; fewer are a name, an abbreviation or a formula.
_MIN_FOREIGN = 2
_MIN_LATIN = 8
# An instruction may be about words of another script, as long as it is not written in that script.
_INSTRUCTION_SHARE = 0.5

_CALLED_FOR = {
    "han": r"chinese|mandarin|cantonese|japanese|kanji|hanzi|hanja|中文|汉字|日[语文]|汉语|粤语",
    "kana": r"japanese|hiragana|katakana|日[语文]|假名",
    "hangul": r"korean|hangul|韩[语文]|朝鲜语",
    "cyrillic": r"russian|ukrainian|bulgarian|serbian|macedonian|mongolian|kazakh|cyrillic|俄[语文]",
    "greek": r"greek|希腊",
    "hebrew": r"hebrew|yiddish|希伯来",
    "arabic": r"arabic|persian|farsi|urdu|quran|koran|阿拉伯|波斯",
    "indic": r"hindi|sanskrit|indian|bengali|tamil|telugu|marathi|punjabi|gujarati|nepali|devanagari|印地|梵[语文]",
    "thai": r"thai|lao\b|泰[语文]",
    "latin": r"english|french|german|spanish|latin|pinyin|[英法德拉]语|[英法德]文|西班牙|拉丁|意大利|葡萄牙"
    r"|拼音|缩写|简称|字母"
    r"|代码|编程|程序|脚本|命令|函数|公式|方程|化学式|表达式|算法|正则|网址|链接|配置|查询|变量|网页|接口|标签|品牌|公司|译",
}
_CALLS_FOR = {script: re.compile(names, re.IGNORECASE) for script, names in _CALLED_FOR.items()}
_CALLS_FOR_ANY = re.compile(
    r"translat|languages?\b|foreign|lingual|alphabet|unicode|emoji|emoticon|encod|cipher|语言|翻译|外[语文]|多语|编码|密码",
    re.IGNORECASE,
)
# The characters before the first range and between the two contain no letters except Latin ones.
_may_be_foreign = re.compile("[\u0370-\u1dff\u2c00-\U0010ffff]").search
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\$[^$\n]+\$", re.DOTALL)
# Searched only after white space: from every character, each search would run to the end of the text.
_ADDRESS = re.compile(r"(?<!\S)\S+@\S+")


@dataclass(frozen=True, slots=True)
class ForeignScript:
    """The check that a task is written in the script of its language.

    Attributes:
        lang: the language of the tasks.
        limit: the share of an output's words, in [0, 1], that may be in a script that is not that of the language, does
            not occur in the instruction or the input, and belongs to no language that the instruction names.
    """

    lang: Language
    limit: float

    def __call__(self, task: Task) -> str | None:
        """Return what is in another script, or None. Up to half of an instruction may be in another script."""
        native = NATIVE[self.lang]
        instruction = task.instruction
        if self.lang == "en" and not any(map(_is_foreign, (instruction, *(each.output for each in task.instances)))):
            return None
        if _CALLS_FOR_ANY.search(instruction):
            return None
        named = native | {script for script, names in _CALLS_FOR.items() if names.search(instruction)}
        share, script = _foreign(instruction, named)
        if share > max(self.limit, _INSTRUCTION_SHARE):
            return f"{share:.0%} of the instruction is {script}"
        called_for = named.union(count_scripts(instruction), *(count_scripts(each.input) for each in task.instances))
        for instance in task.instances:
            share, script = _foreign(instance.output, called_for)
            if share > self.limit:
                return f"{share:.0%} of an output is {script}"
        return None


def _is_foreign(text: str) -> bool:
    """Return whether `text` may contain a non-Latin letter; a fast test that clears nearly every English text."""
    return not text.isascii() and _may_be_foreign(text) is not None


def count_scripts(text: str) -> Counter[str]:
    """Return the number of words of `text` by script."""
    return Counter(match.lastgroup or "" for match in _WORDS.finditer(text))


def _foreign(text: str, called_for: frozenset[str]) -> tuple[float, str]:
    """Return the share of words of `text` in scripts other than `called_for`, and the most frequent such script."""
    counts = count_scripts(_ADDRESS.sub(" ", _CODE.sub(" ", text)))
    foreign = Counter({script: count for script, count in counts.items() if script not in called_for})
    total = foreign.total()
    if total < (_MIN_LATIN if set(foreign) == {"latin"} else _MIN_FOREIGN):
        return 0.0, ""
    return total / counts.total(), foreign.most_common(1)[0][0]
