"""Profiles `translate` and `polish`: job k rewrites the k-th selected task of another run.

Each field with words is rewritten in a separate request with greedy decoding, which small models can handle; code, data
and numbers are copied. The result must pass the checks of integrity.py and then the rules of its language. A task about
the words of its own language is not translated, because its output would no longer be correct. If the result of
`polish` is rejected, the original task is kept, so that no task is lost.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Literal, NamedTuple, TypeAlias

from selfinstruct_local.engines.base import Completion, FinishReason, Request, Sampling
from selfinstruct_local.errors import UsageError
from selfinstruct_local.filters.rules import apply_rules
from selfinstruct_local.filters.rulesets import rule_set
from selfinstruct_local.generate.job import Job, ParsedTask, Steps
from selfinstruct_local.generate.parsing.tasks import REFUSED_PROMPT, TRUNCATED, cut_short
from selfinstruct_local.generate.rewriting.integrity import (
    CHECKS,
    MIN_LANGUAGE_SHARE,
    NOT_TRANSLATED,
    is_code,
    language_of,
    language_share,
    not_translated,
)
from selfinstruct_local.generate.settings import DecidingSettings
from selfinstruct_local.generate.wording import WORDINGS
from selfinstruct_local.languages.base import Language
from selfinstruct_local.prompts import SUFFIX, Prompts
from selfinstruct_local.task import Instance, Task
from selfinstruct_local.templates.turns import Turn

Command: TypeAlias = Literal["translate", "polish"]

ABOUT_LANGUAGE = "about_language"
LABEL_CHANGED = "label_changed"
UNCHANGED = "unchanged"

# Each token has at least one byte, and a rewritten text about as many bytes as its source (see MAX_GROWTH in
# integrity.py); this many tokens are added to the limit.
SPARE_TOKENS = 64
MAX_LABEL_CHARACTERS = 40

_ABOUT_LANGUAGE = re.compile(
    r"\b(?:translat\w*|rhym\w*|spell(?:ing|ed)?|misspel\w*|syllables?|palindromes?|anagrams?|vowels?|consonants?"
    r"|acronyms?|alliterat\w*|acrostic|haiku|limericks?|sonnets?|grammar|grammatical(?:ly)?|punctuat\w*|pronouns?|verbs?"
    r"|tense|plural|alphabet\w*|upper ?case|lower ?case|capitali[sz]e\w*|letters? of the"
    r"|in (?:french|spanish|german|italian|latin))\b"
    r"|翻译|译成|译为|押韵|拼音|成语|谚语|歇后语|汉字|笔画|部首|偏旁|对联|古诗|绝句|律诗|病句|标点|绕口令|谜语|谐音|量词|声调|错别字",
    re.IGNORECASE,
)
_HEADING = "### "


class Field(NamedTuple):
    """A field of a task: its name, the index of its instance, and its text."""

    name: str
    instance: int
    text: str


class RewriteProfile:
    """Profile that rewrites one source task per job; `jobs` is the number of sources."""

    demonstrations = 0
    shows_whole_tasks = False

    def __init__(self, command: Command, settings: DecidingSettings, sources: Sequence[Task]) -> None:
        """Load the prompts for the sources.

        Args:
            command: rewriting command, which is also the profile's name.
            settings: settings; `lang` is the language to translate to.
            sources: selected tasks, with their IDs for the lineage.
        """
        self.name = command
        self.jobs = len(sources)
        self._command = command
        self._settings = settings
        self._sources = sources
        polishing = {lang: f"polish{words.suffix}" for lang, words in WORDINGS.items()}
        names = polishing if command == "polish" else {settings.lang: f"translate_{settings.lang}"}
        self.prompts = tuple(names.values())
        self._prompts = {lang: _rewrite_prompt(settings.prompts, name) for lang, name in names.items()}

    def steps(self, job: Job) -> Steps:
        """Yield one request per field; return the rewritten task."""
        source = self._sources[job.number]
        job.shown.append(source)
        about = _ABOUT_LANGUAGE.search(source.instruction) if self._command == "translate" else None
        if about:
            return [ParsedTask(source, ABOUT_LANGUAGE, f"the instruction contains '{about[0]}'")]
        fields = [field for field in _fields(source) if self._is_asked(field)]
        if not fields:
            return self._end(source, ParsedTask(source, UNCHANGED, "only code, numbers and names"))
        completions = yield [self._request(job, source, field) for field in fields]
        answers = dict(zip(fields, completions, strict=True))
        return self._end(source, self._read(source, answers))

    def _language(self, text: str) -> Language:
        """Return the language of a rewritten text: the target language, or the text's own for `polish`."""
        return self._settings.lang if self._command == "translate" else language_of(text) or "en"

    def _is_asked(self, field: Field) -> bool:
        if is_code(field.text) or language_of(field.text) is None:
            return False
        if self._command == "polish":
            return field.name == "output"
        return needs_translation(field.text, self._settings.lang)

    def _request(self, job: Job, source: Task, field: Field) -> Request:
        given = source.instances[field.instance].input if source.instances else ""
        task = f"{source.instruction}\n{given}" if given else source.instruction
        prompt = self._prompts[self._language(field.text)]
        chat = self._settings.prompt_format == "chat"
        sampling = Sampling(
            temperature=0.0,
            top_p=1.0,
            max_tokens=SPARE_TOKENS + len(field.text.encode()),
            stop=() if chat else (f"\n{prompt.first_heading}",),
        )
        if chat:
            turns = prompt.turns(task=task, text=field.text)
            return job.request(field.name, field.instance, "", sampling, turns)
        return job.request(field.name, field.instance, prompt.text(task=task, text=field.text), sampling)

    def _read(self, source: Task, answers: Mapping[Field, Completion]) -> ParsedTask:
        """Return the rewritten task, rejected if a check or rule fails."""
        texts = {field: field.text for field in _fields(source)}
        for field, completion in answers.items():
            heading = self._prompts[self._language(field.text)].answer_heading
            texts[field] = _unwrap(completion.text.strip().removeprefix(heading).strip(), field.text)
        task = _rebuild(source, {field[:2]: text for field, text in texts.items()})
        for field, completion in answers.items():
            fault = _torn(completion, texts[field]) or self._damage(field.text, texts[field])
            if fault:
                rule, detail = fault
                return ParsedTask(task, rule, f"{field.name}: {detail}")
        if task.instances == source.instances and task.instruction == source.instruction:
            return ParsedTask(task, UNCHANGED, "the text is unchanged")
        if self._command == "translate" and (label := _lost_label(source, task)):
            return ParsedTask(task, LABEL_CHANGED, label)
        return self._screen(task)

    def _damage(self, before: str, after: str) -> tuple[str, str] | None:
        for rule, check in CHECKS:
            detail = check(before, after)
            if detail:
                return rule, detail
        detail = not_translated(before, after, self._language(before))
        return (NOT_TRANSLATED, detail) if detail else None

    def _screen(self, task: Task) -> ParsedTask:
        lang = self._language(task.instruction)
        verdict = apply_rules(rule_set(self._settings.rules, lang, self._settings.thresholds()), task)
        return ParsedTask(task, verdict.rule, verdict.detail)

    def _end(self, source: Task, draft: ParsedTask) -> list[ParsedTask]:
        """Return the rewritten task, followed by the original if `polish` was rejected."""
        return [draft, ParsedTask(source)] if self._command == "polish" and draft.rule else [draft]


class RewritePrompt:
    """A few-shot prompt with rules, as a completion prompt or a conversation.

    Its file contains the rules, then examples. Each example begins with the same heading and ends with the answer under
    a second heading, also the same in all; the answer of the last one is missing.
    """

    def __init__(self, template: str) -> None:
        """Parse a prompt template with `$text`, and optionally `$task`, in the last example.

        Raises:
            ValueError: the template has another structure.
        """
        self._template = Template(template)
        headings = [line for line in template.split("\n") if line.startswith(_HEADING)]
        self.first_heading, self.answer_heading = (headings[0], headings[-1]) if headings else ("", "")
        rules, *exchanges = template.split(f"{self.first_heading}\n")
        parts = [exchange.partition(f"\n\n{self.answer_heading}") for exchange in exchanges]
        answers = [bool(mark) and answered.strip() for _, mark, answered in parts]
        if not (rules.strip() and headings and answers and all(answers[:-1]) and answers[-1] == ""):
            message = (
                "must have the structure of the built-in prompt: rules, then examples under the same two '### ' "
                "headings, the last one without its answer"
            )
            raise ValueError(message)
        self._turns = [Turn("system", rules.strip())]
        for asked, _, answered in parts:
            self._turns.append(Turn("user", f"{self.first_heading}\n{asked}"))
            if answered:
                self._turns.append(Turn("assistant", answered.strip()))

    def text(self, **data: str) -> str:
        """Return the completion prompt."""
        return self._template.substitute(data)

    def turns(self, **data: str) -> tuple[Turn, ...]:
        """Return the conversation: the rules, the examples as earlier turns, and the text to rewrite."""
        return tuple(turn._replace(content=Template(turn.content).substitute(data)) for turn in self._turns)


def _rewrite_prompt(prompts: Prompts, name: str) -> RewritePrompt:
    """Return the rewriting prompt with the given name.

    Raises:
        UsageError: the user's own prompt of that name has another structure.
    """
    try:
        return RewritePrompt(prompts.load(name).template)
    except ValueError as error:
        message = f"--prompts {prompts.folder}: {name}{SUFFIX}: {error}"
        raise UsageError(message) from error


def needs_translation(text: str, lang: Language) -> bool:
    """Return whether a text has words, most of them not in language `lang`."""
    share = language_share(text, lang)
    return share is not None and share < MIN_LANGUAGE_SHARE


def _fields(task: Task) -> Iterator[Field]:
    """Yield the fields of a task; empty inputs are skipped."""
    yield Field("instruction", 0, task.instruction)
    for number, instance in enumerate(task.instances):
        if instance.input.strip():
            yield Field("input", number, instance.input)
        yield Field("output", number, instance.output)


def _rebuild(source: Task, texts: Mapping[tuple[str, int], str]) -> Task:
    instances = tuple(
        Instance(texts.get(("input", number), ""), texts["output", number]) for number in range(len(source.instances))
    )
    return Task(texts["instruction", 0], instances, source.is_classification)


def _torn(completion: Completion, text: str) -> tuple[str, str] | None:
    if completion.finish_reason is FinishReason.REFUSED:
        return REFUSED_PROMPT, f"a prompt of {completion.prompt_tokens} tokens leaves no room in the context"
    if cut_short(completion):
        return TRUNCATED, f"truncated ({completion.finish_reason.value})"
    return None if text else (TRUNCATED, "empty completion")


_QUOTES = {'"': '"', "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}"}


def _unwrap(text: str, source: str) -> str:
    """Return the text without quotation marks that the model added around it."""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and source.strip()[:1] not in _QUOTES:
        return text[1:-1].strip()
    return text


def _lost_label(source: Task, task: Task) -> str | None:
    """Return the problem if an output that its question names is no longer named after translation, or None."""
    for before, after in zip(source.instances, task.instances, strict=True):
        label, new = _label(before.output), _label(after.output)
        if len(label) > MAX_LABEL_CHARACTERS or language_of(label) is None:
            continue
        if label in f"{source.instruction}\n{before.input}".lower() and (
            new not in f"{task.instruction}\n{after.input}".lower()
        ):
            return f"the question contained '{label}', but not '{new}'"
    return None


def _label(text: str) -> str:
    return text.strip().rstrip(".!\N{IDEOGRAPHIC FULL STOP}").lower()
