"""What small models leave undone: lists and code that break off, questions back to who asked, copies of the question.

Each check gives what it saw, or None, and looks at outputs alone; they hold in English and Chinese.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import ast
import re
import textwrap
import warnings

from selfinstruct_local.filter.asking import Asking
from selfinstruct_local.filter.rules_zh import tokens
from selfinstruct_local.tasks import Task

# --- breaking off ---------------------------------------------------------------------------------------------------

# On a line of its own, at the beginning or below what announces the list; the screen looks for this too.
FIRST_ITEM = re.compile(r"(?:\A|\n)[ \t]{0,8}1[.)、](?=\D)")
# The same within a paragraph: "Here is a guide to get you started: 1. Define your plan."
INLINE_ITEM = ": 1"
_INLINE_FIRST_ITEM = re.compile(
    r"\b(?:guide|steps?|tips|list|ideas|plan|checklist|outline|examples|suggestions|options|recommendations|ways|reasons)\b"
    r"[^.!?:\n]{0,200}: 1[.)] (?=\S)",
    re.IGNORECASE,
)
_SECOND_ITEM = re.compile(r"(?:^|\s)2[.)、](?=\D)")
# "Here's a simple guide to help you pack." and nothing after it: one of these words begins the last sentence.
ANNOUNCING = ("here", "below")
_LAST_SENTENCE = 200
_ANNOUNCES = re.compile(
    r"(?:\A|[.!?\n]\s?)(?:here(?:['’]s| is| are)|below (?:is|are)) (?:an?|some|the|my|our|your|\d+|two|three|four|five"
    r"|ten)\b"
    r"[^.!?:\n]*(?:guide|steps?|tips|list|ideas|plan|checklist|outline|examples?|suggestions|options|recommendations|ways"
    r"|recipe|overview|version|breakdown|explanation|summary)\b[^.!?:\n]*[.!]?\Z",
    re.IGNORECASE,
)
_FENCE = "```"
# Characters. Python's parser makes a tree of what it reads, and that takes many times the memory of the text.
READ_AS_PYTHON = 100_000
# White space that may be line breaks as well would be gone through anew for each of them: here and below it is bounded.
_PYTHON = re.compile(r"```(?:python|py)[^\S\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_OLD_PRINT = re.compile(r"^[ \t]*print [^(\s=]", re.MULTILINE)
_CALLS_FOR_OPEN_END = re.compile(
    r"\b(?:template|forms?|headings?|titles?|begin\w*|introduc\w*|salutation|greeting|outline|format|survey|reports?"
    r"|punctuat\w*|blanks?)\b|开头|标题|称呼|格式|模板|标点|语法|表格",
    re.IGNORECASE,
)
# A line of code may end with a colon.
_CALLS_FOR_A_LINE = re.compile(r"\b(?:code|syntax|errors?|bugs?|lines?)\b|代码|语法|错误", re.IGNORECASE)
_LINE_WORDS = 7
# One item is no list where several are asked for; where one of some is to be chosen, it may be the answer.
_CALLS_FOR_SEVERAL = re.compile(
    r"\b(?:lists?|tips|ways|steps|examples|ideas|things|reasons|options|suggestions|checklist|guide|some|top \d+"
    r"|several|two|three|four|five|six|seven|eight|nine|ten)\b|列出|几个|步骤|建议",
    re.IGNORECASE,
)
_CALLS_FOR_ONE = re.compile(r"\b(?:select|choose|pick|which|determine|output \d)\b|选|哪", re.IGNORECASE)


def cut_off(task: Task) -> str | None:
    """Tells of an output that announces something and ends there, or of code that does not end or is no Python.

    Python is parsed in the first `READ_AS_PYTHON` characters of an output.
    """
    asks = Asking(task.instruction)
    for instance in task.instances:
        output = instance.output.strip()
        if (
            output.endswith((":", "："))
            and not asks.for_any(_CALLS_FOR_OPEN_END)
            and not (asks.for_any(_CALLS_FOR_A_LINE) and len(output.split()) <= _LINE_WORDS)
        ):
            return "an output ends with a colon"
        if _has_first_item(output, asks) and not _SECOND_ITEM.search(output) and not asks.for_any(_CALLS_FOR_ONE):
            return "an output is a list that ends after its first item"
        if not output.endswith((":", "：")) and announces(output) and not asks.for_any(_CALLS_FOR_OPEN_END):
            return f"an output ends with what it announces: {_shown(output[-80:])}"
        if output.count(_FENCE) % 2:
            return "an output has a block of code that does not end"
        if fault := _python_fault(output):
            return fault
    return None


def _has_first_item(output: str, asks: Asking) -> bool:
    """Whether a list begins that somebody asked for, or that the output itself announces."""
    if FIRST_ITEM.search(output) and asks.for_any(_CALLS_FOR_SEVERAL):
        return True
    return INLINE_ITEM in output and _INLINE_FIRST_ITEM.search(output) is not None


def announces(output: str) -> bool:
    """Whether a text says at its end that something follows, in its last sentence or by a colon."""
    last = output[-_LAST_SENTENCE:].rstrip()
    if last.endswith((":", "：")):
        return True
    lowered = last.lower()
    return any(word in lowered for word in ANNOUNCING) and _ANNOUNCES.search(last) is not None


def _python_fault(output: str) -> str | None:
    for match in _PYTHON.finditer(output[:READ_AS_PYTHON]):
        code = textwrap.dedent(match[1])
        # A session of the interpreter, a part of a program and the Python of old are no faults.
        if ">>>" in code or "..." in code or _OLD_PRINT.search(code):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                ast.parse(code)
        except (RecursionError, MemoryError):
            continue  # how deep is too deep depends on who calls
        except (SyntaxError, ValueError) as error:
            return f"an output has Python that cannot be read ({str(error).split('(')[0].strip()[:60]})"
    return None


# --- asking back ----------------------------------------------------------------------------------------------------

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*(?=\S)|\n+")
# An item of a list, or a line of a dialogue: a question in it is part of what was asked for, as in an exercise.
_LISTED = re.compile(r"\s*(?:[-*•–]|\(?(?:\d{1,3}|[A-Za-z])[.):\-、]|#+\s|[A-Z][\w.]*(?: [A-Z][\w.]*)?:\s)")
_MARKER = re.compile(r"(?:\A|[:;：；])\s?\(?(?:\d{1,3}|[A-Za-z])[.)、]\Z")
# "How about a picnic?" proposes, and does not ask for what is missing.
_PROPOSES = re.compile(
    r"\W*(?:(?:so|and|or|then|maybe|perhaps),? )?(?:how about|what about|why not|why don['’]t)\b", re.IGNORECASE
)
_ADDRESSES = re.compile(r"\byou\b|[你您]", re.IGNORECASE)
# Beside questions and offers, sentences that lead to them: "Tell me more.", "Then I can plan it.".
_LEADS = re.compile(
    r"\b(?:tell me|let me know|please (?:provide|share|give|specify|describe|send)|help me understand"
    r"|I(?:['’](?:d|ll)| would| will)? (?:also )?(?:need|want|have|like) "
    r"(?:to know|to ask|to understand|more|some|a few|a bit)"
    r"|(?:then|so|that|and|can,|know,) I(?:['’]ll| can| will)"
    r"|I(?:['’]ll| can| will) (?:then|help|assist))\b"
    r"|请(?:提供|告诉|说明|补充)|我(?:需要|想)(?:知道|了解)|我(?:才能|就能|就可以)",
    re.IGNORECASE,
)
# Who asks is spoken to after the last quotation that ends in a sentence.
_YOU = re.compile(r"(?<![\w\"“'])(?:you|your|you['’](?:d|re|ve|ll))\b", re.IGNORECASE)
_YOU_ZH = re.compile(r"[你您]")
# One of these stands in every offer; the screen looks for them.
OFFERING = ("happy", "glad", "love", "delighted", "thrilled", "here")
_OFFER = re.compile(
    r"(?<![\w\"“'])I(?:['’]d| would| will|['’]ll|['’]m| am)? (?:always |be |so |very |more than )*"
    r"(?:happy|glad|love|delighted|thrilled|here)\b "
    r"(?:to (?:help|assist|collaborate|guide|recommend|suggest)|I could|for you)"
    r"|很?(?:高兴|乐意)(?:能)?(?:为[你您]|帮[你您助])",
    re.IGNORECASE,
)
# One question may lead to what follows; who was asked for help and asks several does not help.
_SEVERAL = 2
#: Words in quotation marks, within a line.
QUOTED = re.compile(r"[\"“][^\"“”\n]*[\"”]")
# Who asks for words to somebody may get a question or an offer in them.
_TO_SOMEBODY = (
    r"questions?|ask(?:s|ing)?|quiz\w*|survey\w*|questionnaires?|polls?|dialog\w*|conversation\w*|chat\w*|e-?mails?"
    r"|letters?|messages?|repl(?:y|ies)|respon[ds]\w*|invit\w*|stor(?:y|ies)|scenarios?|poems?|songs?|lyrics|raps?"
    r"|rhymes?|jokes?|riddles?|adverts?|advertis\w*|commercials?|slogans?|tag ?lines?|headlines?|tweets?|captions?"
    r"|speech(?:es)?|scripts?|scenes?|monologues?|pretend|act as|role-?play\w*|rewrite|rephrase|reword\w*"
    r"|paraphrase|translat\w*|come ?backs?|retorts?|prompts?|transcri\w*"
)
_TO_SOMEBODY_ZH = (
    r"问|采访|调查|对话|邮件|信|短信|消息|回复|邀请|故事|诗|歌|笑话|谜|广告|口号|标题|文案|演讲|剧本"
    r"|扮演|改写|润色|翻译|写"
)
_MAY_ASK = re.compile(rf"\b(?:{_TO_SOMEBODY})\b|{_TO_SOMEBODY_ZH}", re.IGNORECASE)
# What else may, where the instruction is an order and not somebody's request for help.
_MAY_ASK_TOO = re.compile(
    r"\b(?:write|compose|posts?|blogs?|titles?|sentences?|quotes?|says?|tell|introduc\w*|greet\w*|hook|pitch\w*"
    r"|announce\w*|copy|paragraphs?|summar\w*|essays?|articles?|customers?|small talk|edit|correct\w*|revise"
    r"|transform|convert|change|turn|forms?|meetings?|guess|reverse|experiments?|tasks?|opening|ads?|act|start\w*)\b|句",
    re.IGNORECASE,
)
_REQUEST = re.compile(
    r"\b(?:(?:can|could|would|will) you|help me|how (?:can|do|should|could|would) I|what (?:can|should|do) I"
    r"|I(?:['’]m|['’]d|['’]ve| am| need| want| would| have))\b|[你您]能|请帮我|我(?:想|要|正|是|该)",
    re.IGNORECASE,
)


def asks_back(task: Task) -> str | None:
    """Return the question or offer of an output that as a whole asks for what is missing, or None.

    More than half of its words must be in such sentences. Quoted and listed questions are not among them.
    """
    wanted = Asking(task.instruction)
    requested = addressed = False
    own: str | None = None
    for instance in task.instances:
        # A search at every character takes long, and few outputs have a word that could be an offer's.
        offers = _OFFER.search(instance.output) if _could_offer(instance.output) else None
        if not offers and "?" not in instance.output and "？" not in instance.output:
            continue
        if own is None:
            own = _own_words(task.instruction)
            requested = _REQUEST.search(own) is not None
            addressed = wanted.for_any(_ADDRESSES) and not _ADDRESSES.search(own)
        may_ask = wanted.for_any(_MAY_ASK) or (not requested and wanted.for_any(_MAY_ASK_TOO))
        # Words to somebody that were given to work on may stay words to somebody.
        may_ask = may_ask or (not requested and (addressed or _ADDRESSES.search(instance.input) is not None))
        # Who is asked for help with a story and begins with an offer writes none, whatever stories may ask.
        offers_at_once = requested and offers is not None and not offers.start()
        if may_ask and not offers_at_once:
            continue
        asked = _asked(instance.output, every=requested or offers is not None)
        if asked and not (may_ask and not any(map(_is_question_back, asked))):
            return f"an output asks back or only offers: {_shown(asked[0])}"
    return None


def _own_words(instruction: str) -> str:
    """Return an instruction up to its first colon and without quotations: what follows may be a text to work on."""
    return QUOTED.sub(" ", instruction).replace("：", ":").partition(":")[0]


def _asked(output: str, *, every: bool) -> list[str]:
    """Return the sentences that ask back or offer, if these and what leads to them are more than half of the output.

    Args:
        output: the text.
        every: whether every question to "you" counts, and two questions without it. Otherwise the last one does.
    """
    sentences = _SENTENCE_END.split(QUOTED.sub(" ", output).strip())
    questions: list[str] = []
    asked: list[str] = []
    leads: list[str] = []
    listed = 0  # words of questions in lists, which count once something outside of the list asks
    for before, each in zip(["", *sentences], sentences, strict=False):
        is_question = each.rstrip().endswith(("?", "？"))
        if _LISTED.match(each) or _MARKER.search(before):
            listed += len(tokens(each)) if is_question else 0
        elif is_question and not _PROPOSES.match(each):
            questions.append(each)
            if _is_question_back(each) and (every or each is sentences[-1]):
                asked.append(each)
        elif _could_offer(each) and _OFFER.search(each):
            asked.append(each)
        elif _LEADS.search(each):
            leads.append(each)
    if every and len(questions) >= _SEVERAL:
        asked = [*asked, *(each for each in questions if not _is_question_back(each))]
    if every and not asked and listed:
        asked, leads = leads, []  # To plan it I need to know: 1. How long will it last?
    words = sum(len(tokens(each)) for each in (*asked, *leads)) + (listed if asked else 0)
    return asked if 2 * words > len(tokens(output)) else []


def _could_offer(output: str) -> bool:
    lowered = output.lower()
    return any(word in lowered for word in OFFERING) or not output.isascii()


def _is_question_back(sentence: str) -> bool:
    """Whether a sentence asks, and says you outside of what it quotes."""
    asked = sentence.rstrip()
    if not asked.endswith(("?", "？")):
        return False
    if asked.endswith("?") and _YOU.search(asked, max(0, asked.rfind('"'), asked.rfind("”"))):
        return True
    return _YOU_ZH.search(asked, max(0, asked.rfind("”"), asked.rfind("」"))) is not None


def _shown(text: str) -> str:
    return f"'{' '.join(text.split())[:80]}'"


# --- copying --------------------------------------------------------------------------------------------------------

COPIED_WORDS = 6
_CALLS_FOR_A_COPY = re.compile(
    r"\b(?:repeat\w*|copy|copies|quot\w*|extract\w*|find|identif\w*|select\w*|choos\w*|chose|pick\w*|which|what|whose|who"
    r"|where|when|highlight\w*|underlin\w*|locat\w*|spot|point out|pull|retriev\w*|options?|correct\w*|errors?"
    r"|mistakes?|grammar\w*|proofread\w*|punctuat\w*|edit\w*|fix\w*|remov\w*|delet\w*|omit\w*|trim|shorten|condens\w*|cut"
    r"|summar\w*|short\w*|answer\w*|classif\w*|categor\w*|detect\w*|determine\w*|decid\w*|sort\w*|order\w*|arrang\w*"
    r"|if|best|most|example|title|sentence that|check|verify|output|lower|upper|capital\w*|format\w*|decod\w*"
    r"|decrypt\w*|transcri\w*|list|name|rank|label|match\w*|filter|print|parse|convert|unscramble)\b"
    r"|复述|抄|引用|摘|找|选|哪|什么|谁|标出|指出|改正|纠正|病句|错|删|缩|概括|判断|分类|排|按|提取|列",
    re.IGNORECASE,
)

_BEFORE_SENTENCE = re.compile(r"(?:^|[\"“'‘`:.!?)\-]\s?)$")
_AFTER_SENTENCE = re.compile(r"[.!?,]*(?:[\"”'’`]|\s|$)")


def copied(task: Task) -> str | None:
    """Tells of an output that is a whole sentence of the instruction, or of an input of which nobody wants one."""
    asks = Asking(task.instruction)
    instruction: str | None = None
    for instance in task.instances:
        # Not more than a mark that stands alone goes at either end: the screen counts on it.
        output = " ".join(instance.output.split()).strip("\"'“”`.").strip()
        if len(output.split()) < COPIED_WORDS:
            continue
        if instruction is None:
            instruction = " ".join(task.instruction.split())
        if _is_sentence_of(instruction, output) and not asks.for_any(_CALLS_FOR_ONE):
            return "an output stands word for word in the instruction"
        if _is_sentence_of(" ".join(instance.input.split()), output) and not asks.for_any(_CALLS_FOR_A_COPY):
            return "an output stands word for word in its input"
    return None


def _is_sentence_of(text: str, sentence: str) -> bool:
    """Whether a text whose words are one space apart has the sentence, where it comes first, as one of its own."""
    before, found, after = text.partition(sentence)
    return bool(found) and _BEFORE_SENTENCE.search(before) is not None and _AFTER_SENTENCE.match(after) is not None
