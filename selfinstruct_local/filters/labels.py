"""The labels that a classification instruction names, and which of them an output is.

An instruction names labels if it asks for a choice (classify, decide whether, which, ...) and lists the answers in one
of a few forms: after a colon, "as", "into", "is" or "answer with", in quotes, in brackets, or as "A if ..., B if ...".
Precision is preferred to recall: other forms, and instructions that also ask for a text, name no labels.

Measured: all 33 English and 30 Chinese classification seeds name labels and have no other outputs (the forms were
written with these in view), none of the other 287 seeds names any. Of 252 expert tasks, 7 name labels, and of 2,000
random records of Alpaca 35; by our reading all are classification.
"""

# ruff: noqa: RUF001 (Chinese marks are meant)

import re
from collections.abc import Iterator, Sequence

from selfinstruct_local.languages.base import Language

MIN_LABELS = 2
MAX_LABELS = 12
MAX_LABEL_WORDS = 5
MAX_LABEL_CHARACTERS = 12  # in a Chinese label
_MAX_INSTRUCTION = 2_000  # characters; longer ones are not searched
_MAX_LABEL_LENGTH = 60  # characters in an English label

# --- English --------------------------------------------------------------------------------------------------------

_KIND = (
    r"(?:actions?|answers?|bins?|buckets?|categor(?:y|ies)|choices|class(?:es)?|departments?|emotions?|following|genres?"
    r"|groups?|kinds?|labels?|levels?|moods?|ones|options|sections?|sentiments?|tags?|teams?|tones?|topics?|types?)"
)
_BEFORE_VERB = r"(?:^|[.?!:;,\n]\s*|\b(?:and|to|please|then|should|must|now)\s+)"
_CHOOSES = re.compile(
    rf"{_BEFORE_VERB}(?:allocate|analy[sz]e|assess|assign|categori[sz]e|check|choose|classif[yi]\w*|decide|detect"
    r"|determine|establish|evaluate|figure out|find out|flag|grade|group|guess|identify|indicate|judge|label|locate"
    r"|mark|match|moderate|pick|place|predict|rank|rate|recogni[sz]e|review|route|score|screen|select|settle|sort|specify"
    r"|state|tag|tell|triage|validate|verify)\b"
    r"|\b(?:be|are to) (?:classified|categori[sz]ed|labell?ed)\b"
    r"|(?:^|[.?!:;]\s+|\n\s*)(?:(?:in |to |for |on |at )?(?:which|what|where)|is|are|was|were|does|do|did|can|could"
    r"|should|would|will|true or false)\b(?=[^.!]*[?:])"
    r"|(?:^|[.?!,\n]\s*)(?:answer|reply|respond|output)\b",
    re.IGNORECASE,
)
# The instruction asks for a text, or for a text with the label.
_WRITES = re.compile(
    r"^\W*(?:please )?find an?\b"
    r"|(?:^\W*(?:(?:can|could|would|will) you )?(?:please )?|[.?!;\n]\s*|\b(?:and|then) (?:then )?|, )"
    r"(?:add|ask|brainstorm|build|calculate|change|combine|come up|compare|complete|compose|comput|construct|contrast"
    r"|convert|correct|craft|create|define|describe|design|develop|discuss|draft|draw|edit|elaborate|expand|explain"
    r"|extract|fix|form|generate|imagine|improve|invent|justify|list|make|name|outline|paraphrase|plan|produce|propose"
    r"|recommend|replace|rephrase|reword|rewrite|say why|show how|show why|solve|substitute|suggest|summar|support your"
    r"|tell me about|tell (?:me |us )?why|translate|turn|use|write"
    r"|(?:give|provide) (?:an? |your |some |two |three )?(?:brief |short |one )?(?:detail|example|explanation|justif"
    r"|reason))\w*\b",
    re.IGNORECASE,
)
# More than one label is wanted, or one per item.
_SEVERAL = re.compile(
    r"\b(?:words|terms|phrases|sentences):?\s[\"“'‘]\w"
    r"|\b(?:each|every|respectively|etc|random(?:ly)?|(?<!of )(?<!by )(?<!from )(?<!in )(?<!into )these"
    r"|(?:all|one or more) (?:of|that)"
    r"|(?:choose|find|identify|pick|select) (?:at least )?(?:all|any|two|three|four|five|\d)"
    r"|(?:as|categori[sz]e|classif\w+|label|mark|sort|tag) them"
    r"|(?:below|following|given|this) (?:kinds|lists?|sets?|types)"
    rf"|(?:below|following|given)(?:\s(?!{_KIND}\b)\w+)?"
    rf"\s(?!{_KIND}\b|news\b|series\b|belongs\b|contains\b|describes\b|shows\b)\w{{3,}}[^su\W]s)\b",
    re.IGNORECASE,
)
_WORD = r"[^\s,.;:?!()\[\]{}/|]+"
_ITEM = rf"{_WORD}(?: {_WORD}){{0,6}}?"
_QUOTE = "\"'“”‘’`*"
_END = r"(?=\s*(?:[.?!;:\n)]|$))"
_TAIL = (
    r"(?=\s*(?:[.?!;:,\n)]|$)"
    r"|\s(?:according|as|based|because|by|depending|for|from|given|in|of|on|using|when|where|with)\b)"
)
_OR_LIST = rf"(?P<list>{_ITEM}(?:,\s{_ITEM})*?,?\sor\s{_ITEM})"
_AND_LIST = rf"(?P<list>{_ITEM}(?:,\s{_ITEM})*?,?\s(?:or|and)\s{_ITEM})"
_COMMA_LIST = rf"(?P<list>{_ITEM}(?:,\s?{_ITEM})+(?:,?\s(?:or|and)\s{_ITEM})?,?)"
_SEPARATOR = r"(?:,\s?|\s?[/|]\s?)"
_ANSWERS = (
    r"(?:^|[.?!:;,\n]\s*|\b(?:and|to|please|then|should|must|now|by|only|just)\s+)"
    r"(?:answer(?:ing)?|output|print|reply(?:ing)?|respond(?:ing)?|return|say|write)\b"
)
# Each form contains a list of labels; the most reliable form comes first.
_FORMS = (
    # Here: Reply with one label: supported, contradicted or not mentioned.
    rf"{_ANSWERS}[^.?!:\n]{{0,60}}:\s*{_OR_LIST}{_END}",
    # Here: Answer valid or invalid. Or: Give your answer as yes, no or unclear.
    (
        rf"(?:{_ANSWERS}(?:[^.?!:,\n]{{0,60}}?\b(?:with|as|either|one of))?|\b(?:answer|label|output|result) as)"
        rf"(?:\s(?:with|only|either|just|simply|as|one of))*\s{_OR_LIST}{_END}"
    ),
    # Here: Decide which mood the customer is in: delighted, satisfied or angry.
    rf":\s*(?!(?:is|are|was|were|do|does|did|can|should|would|will)\b){_OR_LIST}{_END}",
    # Here: ... into one of the categories: news, sports, tech
    (
        rf"\b(?:as|from|in|into|labels|of|options|to|under|with)\b[^.?!:\n]{{0,40}}{_KIND}"
        rf"(?:\s(?:below|are|include|is|given))*:\s*{_COMMA_LIST}{_END}"
    ),
    # Here: Options: positive, negative, neutral
    rf"(?:^|[.?!\n]\s*)(?:\w+\s)?(?:options|choices|labels|categories|classes):\s*{_COMMA_LIST}{_END}",
    # Here: ... into one of the categories news, sports and tech
    (
        rf"\b(?:list of|one of|into|under|belongs to|falls into|fits)\s(?:the\s)?(?:one of\s)?(?:the\s)?"
        r"(?:following\s)?"
        rf"(?:(?:\w+\s)?{_KIND}\s(?:of\s)?)?{_AND_LIST}{_TAIL}"
    ),
    # Here: Classify the change as physical or chemical.
    rf"\b(?:as|being)\s(?:either\s)?{_OR_LIST}{_TAIL}",
    # In brackets.
    rf"[(\[](?:either\s)?(?P<list>(?!\d){_ITEM}(?:{_SEPARATOR}{_ITEM})*(?:,?\sor\s|{_SEPARATOR}){_ITEM})[)\]]",
    # Here: ... whether the speaker is sarcastic or sincere
    (
        r"\b(?:whether|if|is|are)\b[^.?!:\n]{0,200}\b(?:is|are|was|were|be|uses?|using|expresses|contains|shows|has)\s"
        rf"(?:either\s)?{_OR_LIST}{_TAIL}"
    ),
    # Here: Is this sentence a question or a command?
    (
        r"(?:^|[.!?:]\s+|\n\s*)(?:is|are|was|were)\s(?:this|it|that|(?:the|this|that)(?:\s(?:following|given|above))?\s\w+)"
        rf"(?:\s\w+)?\s(?P<list>(?:an?\s)?{_WORD}(?:,\s{_ITEM})*?,?\sor\s(?:an?\s)?{_WORD}(?:\s{_WORD})?)(?=\s*\?)"
    ),
    r"(?:^|[.!?:]\s+|\n\s*)(?P<list>true or false)\b",
)
_FIND = tuple(re.compile(form, re.IGNORECASE) for form in _FORMS)
_QUOTED_LABEL = r"[\"“'‘][^\"“”\n]{1,60}?[\"”'’]"
_QUOTED = re.compile(
    rf"{_QUOTED_LABEL}(?:(?:,|,?\s(?:or|and)(?:\s(?:an?|as|the))?|\s/)\s{_QUOTED_LABEL}[,.]?(?=[\s.,:;?!)]|$))+"
)
_EACH_QUOTED = re.compile(r"[\"“'‘]([^\"“”\n]{1,60}?)[,.]?[\"”'’](?=[\s.,:;?!)]|$)")
# "strong if it comes from a test, weak if it rests on stories, and none in all other cases"
_CASES = re.compile(
    r"(?:(?:^|[:;,.]\s|\b(?:is|are|as)\s)(?:(?:and|or|it is|they are)\s)?)"
    r"(?!(?:assess|check|decide|determine|find out|identify|indicate|judge|say|see|state|tell|verify)\b)"
    r"(?P<label>[^\s,.;:]+(?:\s[^\s,.;:]+){0,2}?)\s(?:if|when|in all other cases|otherwise)\b",
    re.IGNORECASE,
)
_SPLIT = re.compile(r",?\s(?:or|and)\s(?=[^,]*$)|,\s?(?:or\s|and\s)?|\s?[/|]\s?")
_LEAD = re.compile(
    r"^(?:(?:either|an?|the|as|being|one of|example of|belonging to|representative of|written in|in|is|are|of|into|with"
    r"|only|just|simply)\s)+",
    re.IGNORECASE,
)
_OTHERWISE = re.compile(r"\b(?:none|neither|both|n/a)\b|都")
_ARTICLE = re.compile(r"^(?:an?|the)\s")
_PLURAL = re.compile(r"(?<=[a-z]{2}[a-rt-z])s$")
_KIND_BEHIND = re.compile(rf"\s{_KIND}$", re.IGNORECASE)
# Words of a clause, not of a label; and words that are no answer by themselves.
_NO_LABEL = re.compile(
    r"\b(?:about|among|answer|below|each|following|given|he|how|if|into|it|its|lines?|one of|paragraphs?|random"
    r"|sentences?|she|should|than|that|the|their|there|these|they|we|whether|which|who|why|words?|you|your)\b"
    r"|\b(?:an?|of)$|^(?:fewer|less|more|not|so)$",
    re.IGNORECASE,
)
# The instruction states its answer format in a way that the forms above do not read: its other lists may be no labels.
_ANSWERS_OTHERWISE = re.compile(
    r"(?:^|[.?!\n]\s*|\band\s+)(?:answer|reply|respond|output|return|print)\s(?:with\s|only\s|either\s)*[\"“'\d]"
    r"|\bon a scale\b|\bfrom \d+ to \d+\b",
    re.IGNORECASE,
)

# The last sentence asks whether something holds; "Can you ...?" is an order, and "or" offers a choice.
_YES_NO = re.compile(
    r"(?:^|[.!?:\n]\s+)(?:is|are|was|were|does|do|did|can|could|should|has|have|had|will|would)\s(?!you\b)"
    r"(?:(?!\bor\b)[^.!?\n])+\?[\"'”’)]?\s*$",
    re.IGNORECASE,
)

# --- Chinese --------------------------------------------------------------------------------------------------------

_CHOOSES_ZH = re.compile(
    r"[判鉴][断定别]|分类|归类|归入|归到|归为|划到|划分|标注|标记|识别|辨[别认]|核对|诊断|检查|哪|属于|选|挑|还是|说出|确定|分析|评估|[只回作]答"
    r"|类[型别]|答“|打标签"
)
_WRITES_ZH = re.compile(
    r"(?:^|[，。！？；：、\n请并再])(?:写[^作]|编写|创作|撰写|翻译|改写|列[出举]|解释|说明(?![文])|描述|生成|设计"
    r"|总结|概括|举|介绍|造句|制定|比较|谈|续写"
    r"|推荐|润色|扩写|仿写|补[全充])|[并再](?:简要)?(?:说明|解释|给出)|说清|理由(?!有)|为什么|怎么|如何|写一|一句话(?!的)"
)
_SEVERAL_ZH = re.compile(
    r"每[个条句项]|分别|所有|哪些|多选|逐[个条句项]|等[）)。类]|这些|以下[各几]|[两三四五六七八九几\d][个条种]建议"
)
_ITEM_ZH = r"[^，。、/？！；：,?!;:\s（）()“”《》]{1,16}?"
_LIST_ZH = rf"(?P<list>“?{_ITEM_ZH}”?(?:[、/]“?{_ITEM_ZH}”?)*(?:(?:[、/]|，?或者?是?|，?还是|和|与)“?{_ITEM_ZH}”?))"
_LAST_ZH = re.compile(r"(?:[、/]|，?或者?是?|，?还是|[和与及](?=[^、]*$))+")
_PLACE_ZH = r"(?:之中|中|里|之间|之一)"
_FORMS_ZH = (
    rf"答(?:案[为是：:]*)?(?:只?[用为：:])?{_LIST_ZH}(?:{_PLACE_ZH}[^。]{{0,8}})?(?=[。？?！：\n]|$)",
    rf"[从在](?:以下)?{_LIST_ZH}(?:这?[两三四五六七八九十几\d]+[种类个项])?{_PLACE_ZH}[^。，]{{0,3}}?(?:[选挑择作答归])",
    rf"可选(?:项|类别|标签|的)?[有为是包括：:]*{_LIST_ZH}(?=[。？?！\n]|$)",
    rf"[：:]\s*{_LIST_ZH}(?:{_PLACE_ZH}?[选挑]一[个种类项])?(?=[。？?！）\n]|$)",
    rf"[？?]\s*{_LIST_ZH}(?:{_PLACE_ZH}?[选挑]一[个种类项])?(?=[。？?！\n]|$)",
    rf"[(（]{_LIST_ZH}[)）]",
    (
        rf"(?:分类?[为成]|归[为入到]|标[记注][为成]|判[断定]为|属于|分到){_LIST_ZH}"
        rf"(?:[类等]?[几两三四五\d]*[类种](?:之一)?)?(?=[。，？?！\n]|$)"
    ),
    rf"(?:[在是像于偏为选读算用])(?P<list>{_ITEM_ZH}(?:、{_ITEM_ZH})+?)(?:之?中的?)?哪[个种类一]",
    rf"(?P<list>“?{_ITEM_ZH}”?(?:、“?{_ITEM_ZH}”?)*，?还是“?{_ITEM_ZH}”?)(?=[。，？?！：\n]|$)",
)
_FIND_ZH = tuple(map(re.compile, _FORMS_ZH))
_QUOTED_ZH = re.compile(
    r"“[^”]{1,12}”(?:(?:[、，]|，?或者?是?|，?还是|和|与)+(?:[是偏为读选]|属于)?“[^”]{1,12}”|“[^”]{1,12}”)+"
)
_YES_NO_ZH = re.compile(r"(?:吗|么)？\s*$|(?:^|[，。：])[^，。？]{0,20}是否[^，。？]{1,40}？?$")
_ANSWERS_ZH = re.compile(r"[答写标填]“([^”]{1,12})”")
_EACH_QUOTED_ZH = re.compile(r"“([^”]{1,12})”")
# What precedes the first label of "这句话最像A还是B".
_LEAD_ZH = re.compile(r"^.*(?:属于|[是像偏读选算为用])(?=.)")
_NO_LABEL_ZH = re.compile(
    r"什么|哪|怎|是否|以下|下面|^这|^那|你|^我|如果|的话|更(?!新|正|改|换)|比较|的$|^[一二两三四五六几\d]+[个句字段]"
)


def named_labels(instruction: str, lang: Language) -> tuple[str, ...]:
    """Return the labels that a classification instruction names, in their order and case, or () if it names none."""
    for candidate in _lists_zh(instruction) if lang == "zh" else _lists(instruction):
        labels = tuple(dict.fromkeys(candidate))
        if _are_labels(labels, lang):
            return labels
    return ()


def yes_no(instruction: str, lang: Language) -> tuple[str, ...]:
    """Return the two answers to a yes-no question, or () for other instructions."""
    if lang == "zh":
        return ("是", "否") if _YES_NO_ZH.search(instruction) else ()
    return ("Yes", "No") if _YES_NO.search(instruction) else ()


def label_of(output: str, labels: Sequence[str]) -> str | None:
    """Return which of the labels an output is, or None if it is none of them.

    Case, quotes, Markdown emphasis, an article in front, a final full stop and a plural "s" are ignored. For "chemical
    or physical change", "Chemical change" and "physical" are labels too.
    """
    said = _bare(output)
    forms = {_bare(label): label for label in labels}
    if said in forms:
        return forms[said]
    last, _, noun = _bare(labels[-1]).rpartition(" ") if labels else ("", "", "")
    if last and not any(" " in _bare(label) for label in labels[:-1]):
        if said == last:
            return labels[-1]
        return forms.get(said.removesuffix(f" {noun}"))
    return None


def names_label(output: str, labels: Sequence[str]) -> bool:
    """Return whether an output contains a label, is part of one, or says that none or several apply."""
    said = _bare(output)
    return _OTHERWISE.search(said) is not None or any(_bare(each) in said or said in _bare(each) for each in labels)


def _bare(text: str) -> str:
    text = text.strip().strip(_QUOTE).rstrip(".。").strip(_QUOTE).strip().casefold()
    text = _ARTICLE.sub("", text)
    return _PLURAL.sub("", text)


def _are_labels(labels: tuple[str, ...], lang: Language) -> bool:
    """Return whether these may be all labels of a task: a few, short, and no clauses."""
    if not MIN_LABELS <= len(labels) <= MAX_LABELS or len({_bare(label) for label in labels}) < len(labels):
        return False
    if lang == "zh":
        return all(0 < len(each) <= MAX_LABEL_CHARACTERS and not _NO_LABEL_ZH.search(each) for each in labels)
    return all(
        each and len(each.split()) <= MAX_LABEL_WORDS and len(each) <= _MAX_LABEL_LENGTH and not _NO_LABEL.search(each)
        for each in labels
    )


def _lists(instruction: str) -> Iterator[list[str]]:
    """Yield candidate lists of labels of an English instruction, the most reliable form first."""
    if len(instruction) > _MAX_INSTRUCTION:
        return
    if not _CHOOSES.search(instruction) or _WRITES.search(instruction) or _SEVERAL.search(instruction):
        return
    if match := _QUOTED.search(instruction):
        yield _EACH_QUOTED.findall(match[0])
    if _ANSWERS_OTHERWISE.search(instruction):
        return
    cases = [_label(match["label"]) for match in _CASES.finditer(instruction)]
    if len(cases) >= MIN_LABELS:
        yield cases
    for form in _FIND:
        for match in form.finditer(instruction):
            labels = [_label(item) for item in _SPLIT.split(match["list"].strip(","))]
            if not any(" " in label for label in labels[:-1]):
                labels[-1] = _KIND_BEHIND.sub("", labels[-1])
            yield labels


def _label(item: str) -> str:
    return _LEAD.sub("", item.strip()).strip(_QUOTE)


def _lists_zh(instruction: str) -> Iterator[list[str]]:
    """Yield candidate lists of labels of a Chinese instruction, the most reliable form first."""
    if len(instruction) > _MAX_INSTRUCTION:
        return
    if not _CHOOSES_ZH.search(instruction) or _WRITES_ZH.search(instruction) or _SEVERAL_ZH.search(instruction):
        return
    yield _ANSWERS_ZH.findall(instruction)
    if match := _QUOTED_ZH.search(instruction):
        yield _EACH_QUOTED_ZH.findall(match[0])
    for form in _FIND_ZH:
        for match in form.finditer(instruction):
            labels = [item.strip("“”") for item in _LAST_ZH.split(match["list"])]
            labels[0] = _LEAD_ZH.sub("", labels[0])
            yield labels
