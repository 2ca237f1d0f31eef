"""The rules for Chinese: those of rules.py, with Chinese phrases and counts.

Chinese is written without spaces, so words are counted in tokens of the kernels' `unicode` tokenizer: one per Han
character, one per run of Latin letters or digits. A Chinese instruction may therefore contain English words: these
rules do not require a single script.

The bounds come from the 175 seeds of each language: the median instruction has 14 words in English and 22 tokens in
Chinese, so a published bound in words is multiplied by about 1.6 to get tokens.
"""

# ruff: noqa: RUF001, RUF003 (Chinese marks are meant)

import re
import string
import unicodedata
from collections.abc import Callable, Iterable

from selfinstruct_local.filters.repetition import Repetition
from selfinstruct_local.filters.rules import UNSUITABLE, Rule
from selfinstruct_local.task import Task

# Not 4 * 1.6: four characters can be a complete request (翻译此句, "translate this sentence"); three (写首诗, "write a
# poem") say as little as the three English words that are rejected. The shortest seed has 7.
MIN_TOKENS = 4
MAX_TOKENS = 240  # 150 words; the longest seed has 83
REPETITION_MIN_TOKENS = 20  # 12 words
REPETITION_MAX_PHRASE = 13  # 8 words

# Marks that open a title or a quotation, with which a good instruction may begin. Brackets are not among them: （ and
# 【 at the start are left over from a numbered list or a heading.
OPENING_MARKS = "“‘「『《〈"

# What text cannot give or see. Chinese has no word boundaries, so each entry excludes the contexts in which the same
# characters mean something else.
_SELF_INSTRUCT_UNSUITABLE = (
    r"图片(?!段)",  # 地图片段 is a piece of a map
    r"(?<![企试意力])图像",  # 企图像从前一样: 企图 is to attempt
    # A picture that the text refers to. 天下图书, 如图书馆 and 这张图书证 are books; 这张图纸 may be given in words.
    r"[下上附如右左]图(?=所示|[中里是为，：])",
    r"看图(?=[写说作回填猜，：])",
    r"[这那][张幅](?:图(?![书纸])|照片|画(?![廊展报院]))",
    r"(?:根据|描述|观察|识别|对照|参考)(?:下面的?|以下|上面的?|所给的?)?(?:照片|截图|插图)",
    # To draw. 绘制蓝图 is to make great plans; 画蛇添足 and 画龙点睛 are idioms, in which no number follows. After 刻,
    # 勾, 描 it means to portray in words, and 动画, 漫画, 油画, 笔画 are nouns.
    r"绘制(?!.{0,12}蓝图)",
    r"(?<![动漫图国油壁年版书字绘刻描勾策规计笔插如像幅张])画(?:出|个(?!个)|[一两三几][幅张只条朵棵座个匹头位])",
    r"(?<![动漫图国油壁年])画图(?!书)",  # 漫画图书
    r"柱状图|折线图|曲线图|直方图|散点图|饼图|思维导图",
    # A map that has to be marked; a question about maps is not excluded.
    r"地图上(?:标|圈|画|指)",
    # An attachment. 文件 alone is also an official letter, and code that reads a file can be written.
    r"(?:打开|查看|阅读|参考|根据|下载)(?:下面的?|以下|所附的?)?附件",
    # To go to a page. A question about links, as in advice on fraud, refers to none.
    r"(?:打开|访问|点击|浏览)(?:以下|下面|下列|这个|该)[^，。；]{0,4}(?:网址|网页|网站|链接)",
)
_ALPACA_UNSUITABLE = (
    *_SELF_INSTRUCT_UNSUITABLE,
    # Film and sound. A video meeting, a script or a title for a video are words.
    r"视频(?!会议|通话|号|网站|平台|脚本|文案|标题)",
    r"音频(?![率道繁])",  # 声音频率 is a sound's frequency; 同音频繁 is unrelated
    r"(?:谱|作)(?:一?[首支段])?曲(?![家者线折])",  # 作曲家 is a composer; 工作曲线 and 光谱曲线 are curves
    r"播放(?:一[首段支]|下面|以下|这[首段])",
    r"听录音|听(?:这[段首]|下面的?|以下)(?:录音|音乐|歌曲|曲子|对话)",
    r"流程图|示意图",
)
_IN_CHINESE = {"alpaca": _ALPACA_UNSUITABLE, "self-instruct": _SELF_INSTRUCT_UNSUITABLE}

_TOKEN = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
    "|[^\\W_\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]+"
)
# 程序员 is a programmer, 程序性 procedural: neither asks for code.
_PROGRAM = re.compile(r"(?:请|请你|帮我|请帮我|帮忙)?(?:编写|写|编)(?:一?[个段份])?程序(?![员性化])")


def tokens(text: str) -> list[str]:
    """Return the tokens of the `unicode` tokenizer for Chinese, kana and Latin text, without a kernel call per text."""
    return _TOKEN.findall(text.lower())


def _too_short(task: Task) -> str | None:
    count = len(tokens(task.instruction))
    return f"{count} characters or words, at least {MIN_TOKENS} wanted" if count < MIN_TOKENS else None


def _too_long(task: Task) -> str | None:
    if len(task.instruction) <= MAX_TOKENS:
        return None
    count = len(tokens(task.instruction))
    return f"{count} characters or words, at most {MAX_TOKENS} wanted" if count > MAX_TOKENS else None


def _asks_for_program(task: Task) -> str | None:
    # Like "Write a program" in English: small models answer without code.
    match = _PROGRAM.match(task.instruction)
    return f"starts with '{match[0]}'" if match else None


def _starts_with_punctuation(task: Task) -> str | None:
    first = task.instruction[:1]
    if not first or first in OPENING_MARKS:
        return None
    marks = first in string.punctuation or unicodedata.category(first).startswith("P")
    return f"starts with {first!r}" if marks else None


def _unsuitable_word(in_chinese: Iterable[str], in_english: Iterable[str]) -> Callable[[Task], str | None]:
    # An English word ends where a Han character begins, so its boundaries are those of ASCII letters.
    english = rf"(?<![A-Za-z0-9_])(?:{'|'.join(map(re.escape, in_english))})(?![A-Za-z0-9_])"
    pattern = re.compile("|".join((*in_chinese, english)), re.IGNORECASE)

    def check(task: Task) -> str | None:
        match = pattern.search(task.instruction)
        return f"asks for what text cannot give: {match[0]!r}" if match else None

    return check


def letters(text: str) -> list[str]:
    """Return the tokens of `text` that consist only of letters."""
    return [token for token in tokens(text) if token.isalpha()]


def chinese_rules(name: str) -> tuple[Rule, ...]:
    """Return the instruction rules of a published program, for Chinese.

    Args:
        name: a key of `UNSUITABLE`.
    """
    return (
        Rule("too_short", _too_short),
        Rule("too_long", _too_long),
        Rule("asks_for_program", _asks_for_program),
        Rule("starts_with_punctuation", _starts_with_punctuation),
        Rule("unsuitable_word", _unsuitable_word(_IN_CHINESE[name], UNSUITABLE[name])),
    )


def chinese_repetition(limit: float) -> Repetition:
    """Return the repetition check with the bounds for Chinese."""
    return Repetition(
        tokens,
        REPETITION_MIN_TOKENS,
        REPETITION_MAX_PHRASE,
        characters=REPETITION_MIN_TOKENS,
        limit=limit,
        letters=letters,
    )
