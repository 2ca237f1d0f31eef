"""Refusals, and instructions that refer to a missing input.

Each check returns what it found, or None. The checks prefer to miss a fault over rejecting a good task: on the 52,002
records of Stanford Alpaca nearly everything they reject is at fault. Refusals are searched in English and Chinese at
once, because a model may answer in either.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re

from selfinstruct_local.filters.asking import Asking
from selfinstruct_local.task import Task

# Characters. A refusal starts an output and says within them what it will not do.
OPENING = 200

_CANNOT = (
    r"(?:can(?:no|['’])t|can not|could(?: not|n['’]t)|(?:am|are|is|['’]m|['’]re) (?:unable|not able|not capable)"
    r"|(?:do|does)(?: not|n['’]t)|not (?:possible|capable|able)|unable)\b"
)
_DOING = (
    r"(?:able to |capable of )?(?:to )?(?:assist|help(?! but| feeling| laughing)|provide|answer|complete"
    r"|fulfill?|create"
    r"|creat|generate|generat|comply|set up|play|draw|make|view|open|send|book|order|schedule|predict"
    r"|perform|access|produce|browse|display|respond|process|offer|have (?:the "
    r"(?:ability|capability|capacity)|access|real-time|enough information|personal|feelings|opinions)|support that"
    r"|do (?:that|this"
    r"|it)\b|provid|execute|physically|engage in|write (?:that|this)|give (?:you )?(?:medical|legal|financial))"
)
# The precheck searches for these: an English refusal begins with one of the words, or contains the other where it
# turns.
REFUSAL_OPENINGS = ("as", "i", "we", "sorry", "my", "apologies", "apologise", "apologize", "unfortunately")
REFUSAL_TURN = "however"
_REFUSAL = re.compile(
    r"\W*(?:"
    # As an AI language model, I do not ...
    rf"as an? (?:AI|artificial intelligence|(?:large |AI )?language model|(?:digital|virtual|AI) assistant)\b"
    rf".{{0,100}}?{_CANNOT}"
    # I'm sorry, but I can't help with that. Sorry, the task involves what the model cannot do.
    r"|(?:I(?:['’]m| am) (?:very |really |so |truly |terribly )?(?:sorry|afraid)|sorry|(?:my "
    r"|I )?apolog(?:ies|i[sz]e)"
    rf"|unfortunately)\b[^.!?\n]{{0,90}}?\b(?:(?:I|we) ?{_CANNOT} {_DOING}"
    rf"|(?:(?:this|the) task|an AI|(?:language|GPT|the) model)\b.{{0,100}}?{_CANNOT})"
    # Sure, I'd be happy to help. However, I'm unable to provide ...
    rf"|[^.!?\n]{{0,90}}[.!] {REFUSAL_TURN}, (?:I|as an AI) ?.{{0,30}}?{_CANNOT} {_DOING}"
    # I cannot assist with that request.
    rf"|(?:I|we)\b ?(?:{_CANNOT}) {_DOING}"
    # I am just a language model ...
    rf"|I(?:['’]m| am) (?:just |only |merely )?an? (?:AI|(?:AI |large )?language model)\b.{{0,100}}?{_CANNOT}"
    r"|作为(?:一个|一名|一款|一种)?(?:AI|人工智能|大型?语言模型|语言模型|智能助手|虚拟助手).{0,40}?(?:无法|不能|没有|不具备|不会)"
    r"|(?:很|非常|十分)?(?:抱歉|对不起|遗憾)[^。！？\n]{0,20}?(?:我|本模型|作为).{0,12}?(?:无法|不能|没办法|不便|不可以)"
    r"(?:为您|为你|向您|向你|给您|给你|帮您|帮你)?(?:直接|继续)?"
    r"(?:提供|回答|协助|帮助|完成|满足|生成|回复|处理|执行|参与|访问|讨论|支持|帮)"
    r"|(?:我|本模型)(?:无法|不能)(?:为您|为你|向您|向你)?(?:提供|回答|协助|满足|完成)(?:这|该|您|你|此|帮助|任何)"
    r")",
    re.IGNORECASE,
)
# If the instruction asks for a message, a dialogue or a rewording, the output may say no.
_MAY_SAY_NO = re.compile(
    r"\b(?:apolog\w*|sorry|refus\w*|declin\w*|reject\w*|repl(?:y|ies)|respon[ds]\w*|letter|e-?mail|message"
    r"|dialog\w*|conversations?|says?|saying|tell|excuses?|speech|tweet|post|diary|monologue|lines?"
    r"|quotes?|chat\w*|bot"
    r"|role|pretend|rewrite|rephrase|reword\w*|paraphrase|edit|correct\w*|translat\w*|negative|complaint|sentences?"
    r"|story|scene|script|character|perspective|express\w*|note|announce\w*|explain why you)\b"
    r"|道歉|抱歉|对不起|拒绝|婉拒|回绝|谢绝|推辞|回复|答复|回信|写信|邮件|短信|留言|通知|客服|对话|台词|小说|故事|扮演"
    r"|改写|润色|翻译|造句|句子|检讨|便条|请假|致歉",
    re.IGNORECASE,
)


def refusal(task: Task) -> str | None:
    """Return how an output declines to answer in its first `OPENING` characters, or None."""
    asks = Asking(task.instruction)
    for instance in task.instances:
        match = _REFUSAL.match(instance.output[:OPENING])
        if match and not asks.for_any(_MAY_SAY_NO) and match[0].strip().lower() not in instance.input.lower():
            return f"an output declines: {_shown(match[0])}"
    return None


# --- instructions that refer to something that is missing -----------------------------------------------------------

# Every English instruction that refers to something contains at least one; the precheck searches for these words.
POINTERS = ("following", "below", "given", "this", "these", "above", "provided", "attached")
_THING = (
    r"(?:texts?|sentences?|paragraphs?|passages?|articles?|words?|phrases?|poems?|haikus?|songs?|lyrics|stor(?:y|ies)"
    r"|e-?mails?|letters?|dialogues?|conversations?|quot(?:e|es|ations?)|statements?|paragraph|essays?"
    r"|excerpts?|reviews?"
    r"|tweets?|headlines?|captions?|lists?|tables?|data|datasets?|data sets?|charts?|figures?|shapes?"
    r"|cartoons?|photos?"
    r"|photographs?|paintings?|puzzles?|equations?|expressions?|code|code snippets?|snippets?|inputs?"
    r"|examples?|scenarios?"
    r"|information|numbers?|options?|items?|documents?|reports?|transcripts?|recipes?|sequences?|arrays?"
    r"|strings?|logos?)"
)
_ANY = r"(?:[a-z'’-]+ ){0,2}?"
_POINTER = re.compile(
    r"\b(?:"
    r"(?:the|these) following\b(?! (?:\w+ )?(?:day|week|month|year|morning|season|evening|best|a|an|the|reasons?)\b)"
    rf"|the (?:given|provided|attached|above) {_ANY}{_THING}"
    rf"|(?:this|these) (?:[a-z'’-]+ )?{_THING}"
    rf"|(?<!a )(?<!any )(?<!some )(?:the|this|these) {_ANY}{_THING} (?:below|above|given|provided"
    rf"|attached)(?! by| to| in)"
    rf"|the below {_ANY}{_THING}"
    r")\b",
    re.IGNORECASE,
)
# `Given a sentence, count its words`: only at the beginning, because elsewhere it is part of a description.
_GIVEN_FIRST = re.compile(
    rf"given (?:a|an|the|this|these|two|some) (?!example)(?:list of )?(?:[a-z'’-]+ )?{_THING},", re.IGNORECASE
)
# Programs and the like work on something given, and do not need to have it.
_MAKES_A_TOOL = re.compile(
    r"\b(?:functions?|programs?|algorithms?|codes?|scripts?|quer(?:y|ies)|class(?:es)?|methods?|formulas?"
    r"|equations?|models?"
    r"|regex|regular expression|apps?|applications?|systems?|python|java|javascript|sql|c\+\+|pseudo-?code|technique"
    r"|loops?|procedure|how (?:do|can|would|could|to)|steps?)\b",
    re.IGNORECASE,
)
# The thing itself: quoted, in brackets, after a colon or a dash, on another line, a second sentence, a row of items.
# For texts without white space at their ends, where what follows white space is found at once.
_CONTAINED = re.compile(
    r"[\"“”‘`\[\]{}()<>=+^|/]|(?<!\w)'|'(?!\w)|[:;\n]\s*\S|[.?!…]\s+\S|\s[-–—]+\s|[a-z]- |,[^,]*,"
    r"|, \S++(?: \S++){0,3} ?$| -\S"
)
_AMOUNT = re.compile(
    r"\b\d+(?:\s*(?:-|to|or)\s*\d+)?[ -](?:\w+ )?(?:words?|sentences?|lines?|paragraphs?|bullet|points?"
    r"|characters?|ways?"
    r"|examples?|words|letters|items?|stanzas?|synonyms?|questions?|ideas?|reasons?|key|steps?|percent)\b",
    re.IGNORECASE,
)
# A further sentence that says how to answer, and cannot be the referenced text.
_HOW = re.compile(
    r"[.!]\s+(?:(?:please|also|then)\s+)?(?:answer|avoid|be|do not|don't|ensure|explain|give|include|keep|limit|list"
    r"|make sure|output|provide|reply|respond|return|try|use|write)\b[^.?!:;\n\"“]*(?=[.!]|$)",
    re.IGNORECASE,
)
# Names that say what to do with the thing; any other capital may begin the thing itself.
_NAMED = re.compile(
    r"\b(?:English|French|Spanish|German|Italian|Chinese|Japanese|Korean|Russian|Portuguese|Latin|Arabic|Hindi|Dutch"
    r"|Swedish|Mandarin|American|British|Python|Java|JavaScript|HTML|CSS|SQL|JSON|XML|APA|MLA|I|US|UK|Haiku|GPT)\b"
)


def missing_input(task: Task) -> str | None:
    """Return what an English instruction refers to that is in neither the instruction nor an input, or None."""
    if not task.instances or any(each.input and not each.input.isspace() for each in task.instances):
        return None
    # A colon at the end says little: of 13 such instructions in the Alpaca data, 8 lack nothing.
    instruction = _HOW.sub("", task.instruction.strip(": \n\t"))
    match = _POINTER.search(instruction) or _GIVEN_FIRST.match(instruction)
    if not match or _contains(instruction, match.end()):
        return None
    following = "following" in match[0].lower()
    if not following and _MAKES_A_TOOL.search(instruction):
        return None
    # `a story ... this story` refers back. So does an instruction about a thing that has to be made first.
    noun = match[0].rstrip(",").split()[-1].lower()
    if not following and re.search(rf"\b{re.escape(noun.rstrip('s'))}", instruction[: match.start()].lower()):
        return None
    return f"refers to {_shown(match[0])} but has no input"


def _contains(instruction: str, end: int) -> bool:
    """Return whether an instruction that refers to a thing before position `end` may contain the thing itself."""
    if not instruction.isascii() or _CONTAINED.search(instruction.rstrip()):
        return True
    if any(character.isdigit() for character in _AMOUNT.sub("", instruction)):
        return True
    return any(character.isupper() for character in _NAMED.sub("", instruction[end:]))


_THING_ZH = (
    r"(?:句子|语句|病句|句|段落|段|文字|文章|文本|短文|课文|材料|对话|诗句|诗歌|诗|词语|单词|词|列表|清单|数据|数列|数字|数|代码|题目"
    r"|题|内容|信息|评论|新闻|报道|邮件|来信|信|标题|表格|选项|陈述|说法|观点|故事|成语|谚语|片段|段子|摘要|评价|留言)"
)
_POINTER_ZH = re.compile(
    # 十八岁以下 and 桥下面 refer to nothing, and neither is followed by such a noun.
    rf"(?<![\d岁字元人分度米个])(?:以下|下面|下列|下述|上述|所给|给定|给出)的?(?:这|几|两|三|四|五|一|那)?[个句段篇首则组条道封份些]?的?"
    rf"[^，。？！、：“「《]{{0,4}}?{_THING_ZH}"
    r"|[这](?:句话|段话|段文字|篇文章|篇短文|段对话|段代码|封邮件|则新闻|组数据|组词|些词语|些句子|个句子|条评论)"
)
_CONTAINED_ZH = re.compile(
    r"[“”「」『』‘’《》\"'\[\]（）(){}=+×÷`、;；]|[：:\n]\s*\S|[。？！?!…]\s*\S|——|\d\d|[A-Za-z]{2}\s+[A-Za-z]{2}"
)


def missing_input_zh(task: Task) -> str | None:
    """Return what a Chinese instruction refers to that is in neither the instruction nor an input, or None."""
    if not task.instances or any(each.input and not each.input.isspace() for each in task.instances):
        return None
    instruction = task.instruction.strip(":： \n\t")
    match = _POINTER_ZH.search(instruction)
    if not match or _CONTAINED_ZH.search(instruction.rstrip()):
        return None
    # 写一段话……这段话: refers to what has to be made first.
    if match[0].startswith("这") and match[0][-1] in instruction[: match.start()]:
        return None
    return f"refers to {match[0]} but has no input"


def _shown(text: str) -> str:
    return f"'{' '.join(text.split())[:60]}'"
