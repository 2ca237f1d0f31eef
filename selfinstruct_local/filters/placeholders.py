"""Placeholders: unfilled slots in an output, and inputs that are only a slot.

A placeholder is a fault if the output should contain the thing itself: "[insert text]" instead of a text, "[Name]"
instead of the answer. In a letter, a post or a contract, a slot for the reader's own name, date or company is no fault.
English and Chinese are checked at once, because a model answers in either.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re

from selfinstruct_local.filters.asking import Asking
from selfinstruct_local.filters.rules_zh import tokens
from selfinstruct_local.task import Instance, Task

_SLOT_NAMES = (
    r"(?:(?:first|last|full|company|customer|client|recipient|sender|product|business|school|store|event"
    r"|manager|employee"
    r"|candidate|friend|teacher|professor|hiring manager|organi[sz]ation|city|restaurant|brand|team"
    r"|project|job|position)"
    r"(?:['’]s)? )?(?:name|title|date|address|e-?mail|phone(?: number)?|number|position|location|company|topic)"
)
_SLOT = re.compile(
    rf"\[ ?(?:(?:insert|enter|add|your|put|fill in|write|type|provide)\b[^\[\]\n]{{1,60}}|{_SLOT_NAMES}) ?\]"
    rf"|<(?:insert|enter|add|your|put|fill in)\b[^<>\n=/]{{1,60}}>"
    r"|\blorem ipsum dolor\b"
    r"|[\[【（<《](?:在此|此处|请在此)?(?:请)?(?:填写|插入|填入|输入|写上)[^\]】）>》\n]{0,20}[\]】）>》]"
    r"|[\[【](?:你的|您的|公司|对方|客户|收件人|产品)[^\]】\n]{0,8}[\]】]",
    re.IGNORECASE,
)
# Any words in brackets; they count as a slot if the text also has one of the slots above.
_BRACKETED = re.compile(r"\[[A-Za-z][^\[\]\n]{1,60}\]")
# An input that is only a slot: [Sound file], <image>. A statement that there is no input is not a slot: <noinput>.
_SLOT_INPUT = re.compile(
    r"\s*(?:[\[<](?!no|n/?a\b))(?:(?<=\[)[A-Za-z][A-Za-z '’-]{2,60}\]|(?<=<)[A-Za-z][A-Za-z '’-]{2,60}>)\s*",
    re.IGNORECASE,
)
_CALLS_FOR_SLOTS = re.compile(
    r"template|placeholder|fill|blank|\bform\b|html|xml|\bcode|\bprogram|script|syntax|\bquery|sql|regex|regular expr"
    r"|mail merge|markdown|format|command|token|mask|annotat|\btags?\b|\blabel|bracket|标记|标签|模板|范本"
    r"|填空|占位|格式"
    r"|代码|命令|程序|括号|函数",
    re.IGNORECASE,
)
# A slot is for a detail that only the reader knows if it names one of the following or is "your ..." ...
_DETAIL = re.compile(
    r"\A. ?your\b|\b(?:names?|titles?|dates?|days?|weekday|months?|years?|times?|deadline|address(?:es)?|e-?mails?"
    r"|phone|mobile|fax|numbers?|contact|signature|initials|position|role|location|place|venue|room|city|town|state"
    r"|country|company|employer|organi[sz]ation|business|school|university|department|team|website|url|handle|link|amount"
    r"|price|salary|age|course|class|major|degree|field)\b|[你您]的|姓名|名字|名称|全名|日期|时间|地址|地点|电话|手机|邮箱|号码|公司|职位|职务|部门|学校|单位|对方|客户"
    r"|收件人|产品|金额|署名|签名|年龄",
    re.IGNORECASE,
)
# ... and contains no word for something that the output itself should provide.
_CONTENT = re.compile(
    r"\b(?:answers?|texts?|content|responses?|repl(?:y|ies)|messages?|body|stor(?:y|ies)|essays?|poems?|paragraphs?"
    r"|sentences?|descriptions?|descriptive|summar(?:y|ies)|explanations?|reasons?|details? (?:of|about|on)|arguments?"
    r"|opinions?|thoughts?|ideas?|examples?|solutions?|outputs?|results?|topics?|benefits?|features?|points?|facts?"
    r"|lists?|purposes?|problems?|steps?|instructions?|quotes?|images?|pictures?|photos?|charts?|graphs?|tables?|diagrams?|presentation|code)\b"
    r"|lorem|答案|回答|内容|文字|正文|文章|描述|说明|理由|原因|观点|想法|例子|故事|结果|图片|主题",
    re.IGNORECASE,
)
# Texts that the reader completes and then sends, posts or signs.
_MESSAGE = re.compile(
    r"\b(?:letters?|e-?mails?|notes?|memos?|messages?|texts?(?= (?:to|for|message))|sms|repl(?:y|ies)"
    r"|respon(?:d|ses?|ding)|invitations?|invites?|postcards?|cards?|tweets?|posts?|captions?|newsletters?"
    r"|announcements?|announc(?:e|ing)|notices?|notifications?|reminders?|press release|adverts?|ads?|advertisements?"
    r"|flyers?|fliers?|posters?|brochures?|job (?:posting|description|listing)|listings?|introduc(?:e|tion)|bios?"
    r"|resum[eé]s?|curriculum vitae|cv|profile|speech(?:es)?|toasts?|eulog(?:y|ies)|greetings?|voice-?mail"
    r"|out[- ]of[- ]office|sign-?offs?|scripts?|pitch(?:es)?|contracts?|agreements?|lease|invoices?|receipts?"
    r"|certificates?|waivers?|proposals?|agendas?|minutes|statements?|applications?|complaints?"
    r"|apolog(?:y|ies|i[sz]e)|resignations?|recommendations?|references?|thank[- ]you|petitions?|affidavits?"
    r"|testimonials?|requests?|slogans?|tag ?lines?|headlines?|(?:landing|web|home) ?pages?|about[- ]us"
    r"|wish(?:es)?|congratulat\w*|thank\w*|invit\w*|apologi\w*|remind\w*|inform(?:ing)?|condolences?|obituar(?:y|ies)"
    r"|vows?|disclaimers?|polic(?:y|ies))\b"
    r"|信|邮件|短信|消息|留言|便条|通知|公告|启事|请柬|邀请|贺卡|回复|答复|致辞|演讲|发言|自我介绍|简历|合同|协议|证明|申请|声明"
    r"|广告|口号|海报|朋友圈|请假条|收据|借条|欠条|证书",
    re.IGNORECASE,
)
# The instruction asks for a detail, or is about a text without asking for one.
_ASKS_FOR_DETAILS = re.compile(
    r"\W*(?:who|whose|whom|what|when|where|which|how (?:many|much|long|old)|identify|extract|find|locate|list|name"
    r"|count|classify|categori[sz]e|is|are|was|were|does|do|did|translate|summari[sz]e)\b|[^，。]{0,12}(?:提取|找出|是谁|概括|翻译|哪)",
    re.IGNORECASE,
)
# The beginning or end of a letter, on a line of its own or next to a slot.
_LETTER = re.compile(
    r"(?:\A|\n|[\"“])[^\S\n]*(?:dear|hi|hello|hey|greetings|good (?:morning|afternoon|evening)|to whom)\b"
    r"[^\n]{0,40}[,:!]"
    r"|\n[^\S\n]*(?:(?:yours|best|kind|warm|with|many)\b[^\n,]{0,30}|sincerely|regards|respectfully|cheers|love"
    r"|thanks|thank you|take care)[^\S\n]*,|(?:\A|\n)\s{0,8}(?:尊敬的|亲爱的|敬启者)|此致|敬礼|敬上",
    re.IGNORECASE,
)


def _slots(text: str) -> dict[str, str]:
    """Return the slots of a text by their lower case, each once."""
    # The search is slow, and nearly no text contains the beginning of a slot.
    if "[" in text or "<" in text or "orem" in text or not text.isascii():
        return {match[0].lower(): match[0] for match in _SLOT.finditer(text)}
    return {}


def placeholder(task: Task) -> str | None:
    """Return which slot an output has instead of content, or which slot is a whole input, or None.

    In a message that its reader is to send, a slot for what only the reader knows, such as a name or a date, is no
    fault.
    """
    asks = Asking(task.instruction)
    of_instruction: dict[str, str] | None = None
    for instance in task.instances:
        whole = _SLOT_INPUT.fullmatch(instance.input)
        slots = {} if whole else _slots(instance.output)
        if not (whole or slots) or asks.for_any(_CALLS_FOR_SLOTS):
            continue
        if whole and whole[0] not in task.instruction:
            return f"an input has an unfilled slot: {_shown(whole[0])}"
        if of_instruction is None:
            of_instruction = _slots(task.instruction)
        given = of_instruction | _slots(instance.input)
        missing = [slot for lowered, slot in slots.items() if lowered not in given]
        fault = next((slot for slot in missing if not _is_detail(slot)), None)
        if missing and not fault:
            fault = _missing_content(instance) or (None if _is_message(asks, instance.output) else missing[0])
        if fault:
            return f"an output has an unfilled slot: {_shown(fault)}"
    return None


def _is_detail(slot: str) -> bool:
    """Return whether a slot is for something that only the reader of the output knows."""
    return _DETAIL.search(slot) is not None and _CONTENT.search(slot) is None


def _missing_content(instance: Instance) -> str | None:
    """Return the first bracket of an output that names content, such as "[reason for the delay]", or None."""
    given = set(_BRACKETED.findall(instance.input))
    found = (slot for slot in _BRACKETED.findall(instance.output) if slot not in given)
    return next((slot for slot in found if _CONTENT.search(slot)), None)


def _is_message(asks: Asking, output: str) -> bool:
    """Return whether an output is a text for its reader to send or sign, with more words of its own than slots."""
    text, slots = _SLOT.subn(" ", output)
    if len(tokens(text)) <= slots:
        return False
    return (asks.for_any(_MESSAGE) and not _ASKS_FOR_DETAILS.match(asks.instruction)) or bool(_LETTER.search(output))


def _shown(text: str) -> str:
    return f"'{' '.join(text.split())[:60]}'"
