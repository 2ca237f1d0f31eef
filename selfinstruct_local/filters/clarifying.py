"""Outputs that only ask the author of the task a question or only offer help.

An output is at fault only if it asks as a whole. Questions in quotations, lists and dialogues belong to the answer, as
in an exercise or an interview. English and Chinese are checked at once.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re

from selfinstruct_local.filters.asking import Asking
from selfinstruct_local.filters.rules_zh import tokens
from selfinstruct_local.task import Task

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*(?=\S)|\n+")
# An item of a list or a line of a dialogue: a question in it is part of the requested answer, as in an exercise.
_LISTED = re.compile(
    r"\s*(?:[-*•–>①-⑳]|\(?(?:\d{1,3}|[A-Za-z]|[一二三四五六七八九十]{1,2})[.):\-、]|#+\s"
    r"|[A-Z][\w.]*(?: [A-Z\d][\w.]*)?:\s|[问答甲乙]：)"
)
_MARKER = re.compile(r"(?:\A|[:;：；])\s?\(?(?:\d{1,3}|[A-Za-z])[.)、]\Z")
# "How about a picnic?" proposes; it does not ask for missing information.
_PROPOSES = re.compile(
    r"\W*(?:(?:so|and|or|then|maybe|perhaps),? )?(?:how about|what about|why not|why don['’]t)\b", re.IGNORECASE
)
_ADDRESSES = re.compile(r"\byou\b|[你您]", re.IGNORECASE)
# Sentences that lead to a question or an offer: "Tell me more.", "Then I can plan it.".
_LEADS = re.compile(
    r"\b(?:tell me|let me know|please (?:provide|share|give|specify|describe|send)|help me understand"
    r"|I(?:['’](?:d|ll)| would| will)? (?:also )?(?:need|want|have|like) "
    r"(?:to know|to ask|to understand|more|some|a few|a bit)"
    r"|(?:then|so|that|and|can,|know,) I(?:['’]ll| can| will)"
    r"|I(?:['’]ll| can| will) (?:then|help|assist))\b"
    r"|请(?:提供|告诉|说明|补充)|我(?:需要|想)(?:知道|了解)|我(?:才能|就能|就可以)",
    re.IGNORECASE,
)
# A question addresses the reader if "you" follows the last quotation that ends in a sentence.
_YOU = re.compile(r"(?<![\w\"“'])(?:you|your|you['’](?:d|re|ve|ll))\b", re.IGNORECASE)
_YOU_ZH = re.compile(r"[你您]")
# Every offer contains at least one; the precheck searches for these words.
OFFERING = ("happy", "glad", "love", "delighted", "thrilled", "here")
_OFFER = re.compile(
    r"(?<![\w\"“'])I(?:['’]d| would| will|['’]ll|['’]m| am)? (?:always |be |so |very |more than )*"
    r"(?:(?:happy|glad|delighted|thrilled) to (?!(?:be|have|hear|know|learn|meet|note|say|see)\b)\w"
    r"|(?:love|here) to (?:help|assist|guide|recommend|suggest)"
    r"|(?:happy|glad|love|delighted|thrilled|here) (?:I could|for you))"
    r"|很?(?:高兴|乐意)(?:能)?(?:为[你您]|帮[你您助])",
    re.IGNORECASE,
)
# A single question may introduce what follows; several are no help to somebody who asks for help.
_SEVERAL = 2
# Words in quotation marks, within one line.
_QUOTED = re.compile(r"[\"“][^\"“”\n]*[\"”]")
# The same in single and Chinese quotation marks; an apostrophe does not end a quotation.
_QUOTED_OTHERWISE = re.compile(r"(?<!\w)['‘](?:[^'’\n]|['’](?=\w)){1,200}['’](?!\w)|[「『][^「」『』\n]*[」』]")
# If the instruction asks for words to somebody, they may contain a question or an offer.
_TO_SOMEBODY = (
    r"questions?|ask(?:s|ing)?|quiz\w*|survey\w*|questionnaires?|polls?|dialog\w*|conversation\w*|chat\w*|e-?mails?"
    r"|letters?|messages?|repl(?:y|ies)|respon[ds]\w*|invit\w*|stor(?:y|ies)|scenarios?|poems?|songs?|lyrics|raps?"
    r"|rhymes?|jokes?|riddles?|adverts?|advertis\w*|commercials?|slogans?|tag ?lines?|headlines?|tweets?|captions?"
    r"|speech(?:es)?|scripts?|scenes?|monologues?|pretend|act as|role-?play\w*|rewrite|rephrase|reword\w*"
    r"|ice-? ?breakers?|rhetorical|openers?|one-liners?|paraphrase|translat\w*|come ?backs?|retorts?|prompts?"
    r"|transcri\w*"
)
_TO_SOMEBODY_ZH = (
    r"问|采访|调查|对话|邮件|信|短信|消息|回复|邀请|故事|诗|歌|笑话|谜|广告|口号|标题|文案|演讲|剧本"
    r"|扮演|改写|润色|翻译|写"
)
_MAY_ASK = re.compile(rf"\b(?:{_TO_SOMEBODY})\b|{_TO_SOMEBODY_ZH}", re.IGNORECASE)
# Further words of that kind, if the instruction is an order and not somebody's request for help.
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


def clarifying_question(task: Task) -> str | None:
    """Return the question or offer of an output that as a whole asks for missing information, or None.

    More than half of its words must be in such sentences. Quoted and listed questions do not count.
    """
    wanted = Asking(task.instruction)
    requested = addressed = False
    own: str | None = None
    for instance in task.instances:
        # The search is slow, and few outputs contain a word of an offer.
        offers = _OFFER.search(instance.output) if _could_offer(instance.output) else None
        if not offers and "?" not in instance.output and "？" not in instance.output:
            continue
        if own is None:
            own = _own_words(task.instruction)
            requested = _REQUEST.search(own) is not None
            addressed = wanted.for_any(_ADDRESSES) and not _ADDRESSES.search(own)
        may_ask = wanted.for_any(_MAY_ASK) or (not requested and wanted.for_any(_MAY_ASK_TOO))
        # If the input is addressed to somebody, the output may be too.
        may_ask = may_ask or (not requested and (addressed or _ADDRESSES.search(instance.input) is not None))
        # An output that begins with an offer is no story, although stories may contain questions.
        offers_at_once = requested and offers is not None and not offers.start()
        if may_ask and not offers_at_once:
            continue
        asked = _asked(instance.output, every=requested or offers is not None)
        if asked and not (may_ask and not any(map(_is_question_back, asked))):
            return f"an output asks a question or only offers help: {_shown(asked[0])}"
    return None


def _own_words(instruction: str) -> str:
    """Return an instruction up to its first colon, without quotations: what follows may be a text to work on."""
    return _unquoted(instruction).replace("：", ":").partition(":")[0]


def _unquoted(text: str) -> str:
    return _QUOTED_OTHERWISE.sub(" ", _QUOTED.sub(" ", text))


def _asked(output: str, *, every: bool) -> list[str]:
    """Return the questions and offers, if they and the sentences that lead to them are more than half of the output.

    Args:
        output: the text.
        every: whether every question that says "you" counts, and two or more questions that do not. Otherwise only the
            last sentence counts as a question.
    """
    sentences = _SENTENCE_END.split(_unquoted(output).strip())
    questions: list[str] = []
    asked: list[str] = []
    leads: list[str] = []
    listed = 0  # words of listed questions, which count only if a sentence outside the list asks
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
    """Return whether a sentence is a question that says "you" outside its quotations."""
    asked = sentence.rstrip()
    if not asked.endswith(("?", "？")):
        return False
    if asked.endswith("?") and _YOU.search(asked, max(0, asked.rfind('"'), asked.rfind("”"))):
        return True
    return _YOU_ZH.search(asked, max(0, asked.rfind("”"), asked.rfind("」"))) is not None


def _shown(text: str) -> str:
    return f"'{' '.join(text.split())[:80]}'"
