"""Profiles `translate` and `polish`: job k rewrites the k-th chosen task of another run.

Every field with words in it is asked for on its own, greedily, which is what small models can do; code, data and
numbers are copied. What comes back must keep what integrity.py looks for, then pass the rules of its language. A task
that is about the words of its own language is not translated: its output would no longer answer it. Where a polished
task is turned away its original stands beside it, so that nothing is lost.
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

# A token has at least a byte, and a rewritten text about as many bytes as its source (see MAX_GROWTH in integrity.py).
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
    """A text of a task: what it is called, the instance it belongs to, and the text."""

    name: str
    instance: int
    text: str


class RewriteProfile:
    """See the module. `jobs` is how many there are: one for each source."""

    demonstrations = 0
    shows_whole_tasks = False

    def __init__(self, command: Command, settings: DecidingSettings, sources: Sequence[Task]) -> None:
        """Takes what is to be rewritten.

        Args:
            command: also the profile's name.
            settings: `lang` is the language to translate to.
            sources: the chosen tasks, with the ids that lineages name.
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
        """One round of requests, a field each."""
        source = self._sources[job.number]
        job.shown.append(source)
        about = _ABOUT_LANGUAGE.search(source.instruction) if self._command == "translate" else None
        if about:
            return [ParsedTask(source, ABOUT_LANGUAGE, f"its instruction says '{about[0]}'")]
        fields = [field for field in _fields(source) if self._is_asked(field)]
        if not fields:
            return self._end(source, ParsedTask(source, UNCHANGED, "code, numbers and names alone"))
        completions = yield [self._request(job, source, field) for field in fields]
        answers = dict(zip(fields, completions, strict=True))
        return self._end(source, self._read(source, answers))

    def _language(self, text: str) -> Language:
        """What a text is to be written in: a polished one stays in its language."""
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
        """The rewritten task, with what speaks against it."""
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
            return ParsedTask(task, UNCHANGED, "nothing was put in other words")
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
        """A polished task takes the place of its original, which stays when it is turned away."""
        return [draft, ParsedTask(source)] if self._command == "polish" and draft.rule else [draft]


class RewritePrompt:
    """A prompt of rules and worked examples, as a text to go on from and as a conversation.

    Its file holds the rules, then exchanges that begin with the same heading and end with the answer under the same
    other one; in the last the answer is missing.
    """

    def __init__(self, template: str) -> None:
        """Takes the prompt with `$text`, and perhaps `$task`, in its last exchange.

        Raises:
            ValueError: the prompt has another form.
        """
        self._template = Template(template)
        headings = [line for line in template.split("\n") if line.startswith(_HEADING)]
        self.first_heading, self.answer_heading = (headings[0], headings[-1]) if headings else ("", "")
        rules, *exchanges = template.split(f"{self.first_heading}\n")
        parts = [exchange.partition(f"\n\n{self.answer_heading}") for exchange in exchanges]
        answers = [bool(mark) and answered.strip() for _, mark, answered in parts]
        if not (rules.strip() and headings and answers and all(answers[:-1]) and answers[-1] == ""):
            message = (
                "has another form than the built-in one: rules, then exchanges under the same two '### ' headings, "
                "the last of them without its answer"
            )
            raise ValueError(message)
        self._turns = [Turn("system", rules.strip())]
        for asked, _, answered in parts:
            self._turns.append(Turn("user", f"{self.first_heading}\n{asked}"))
            if answered:
                self._turns.append(Turn("assistant", answered.strip()))

    def text(self, **data: str) -> str:
        """The prompt that a completion follows."""
        return self._template.substitute(data)

    def turns(self, **data: str) -> tuple[Turn, ...]:
        """The rules, the examples as turns that went before, and what is to be rewritten."""
        return tuple(turn._replace(content=Template(turn.content).substitute(data)) for turn in self._turns)


def _rewrite_prompt(prompts: Prompts, name: str) -> RewritePrompt:
    """Return the prompt of that name.

    Raises:
        UsageError: the user's own prompt of that name has another form.
    """
    try:
        return RewritePrompt(prompts.load(name).template)
    except ValueError as error:
        message = f"--prompts {prompts.folder}: {name}{SUFFIX}: {error}"
        raise UsageError(message) from error


def needs_translation(text: str, lang: Language) -> bool:
    """Whether a text has words, most of them of another language than `lang`."""
    share = language_share(text, lang)
    return share is not None and share < MIN_LANGUAGE_SHARE


def _fields(task: Task) -> Iterator[Field]:
    """The texts of a task that are not empty."""
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
        return REFUSED_PROMPT, f"{completion.prompt_tokens} tokens leave no room in the context"
    if cut_short(completion):
        return TRUNCATED, f"cut short ({completion.finish_reason.value})"
    return None if text else (TRUNCATED, "nothing was written")


_QUOTES = {'"': '"', "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}"}


def _unwrap(text: str, source: str) -> str:
    """The text without quotation marks that were put around it."""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and source.strip()[:1] not in _QUOTES:
        return text[1:-1].strip()
    return text


def _lost_label(source: Task, task: Task) -> str | None:
    """Tells of an answer that was quoted from its question and is not any more: each was translated on its own."""
    for before, after in zip(source.instances, task.instances, strict=True):
        label, new = _label(before.output), _label(after.output)
        if len(label) > MAX_LABEL_CHARACTERS or language_of(label) is None:
            continue
        if label in f"{source.instruction}\n{before.input}".lower() and (
            new not in f"{task.instruction}\n{after.input}".lower()
        ):
            return f"'{label}' stood in the question, '{new}' does not"
    return None


def _label(text: str) -> str:
    return text.strip().rstrip(".!\N{IDEOGRAPHIC FULL STOP}").lower()
