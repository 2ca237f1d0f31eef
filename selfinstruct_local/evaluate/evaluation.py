"""The evaluation from end to end: answers by one engine per model, the judge's engine, then the losses.

Engines run one after the other, because each takes the memory for itself. The losses are computed last, in this
process, because an engine that starts later would lack the GPU memory that torch holds here.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from selfinstruct_local import __version__
from selfinstruct_local.engines.base import Completion, Engine, Request, RequestKey
from selfinstruct_local.errors import UsageError
from selfinstruct_local.evaluate.answers import ask
from selfinstruct_local.evaluate.cases import Case, HeldOut
from selfinstruct_local.evaluate.evaluated_models import EvaluatedModel
from selfinstruct_local.evaluate.losses import Surprise, build_references, measure_losses, prompt_length
from selfinstruct_local.evaluate.metrics import Metrics, Scored, Scorer, make_metrics
from selfinstruct_local.evaluate.pairwise import STAGE, Judgement, PairwiseJudge, Said, judge_prompt
from selfinstruct_local.generate.launch import ChosenModel
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.files import replace_atomically
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.progress import counting, format_seconds, waiting
from selfinstruct_local.io.writer import open_writer
from selfinstruct_local.train.data import Example

SUMMARY = "eval.json"
ANSWERS = "answers.jsonl"
StartEngine = Callable[[ChosenModel, GenerateSettings], Engine]
_SETTINGS = {"num", "seed", "lang", "max_tokens", "max_model_len", "engine"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        held_out: the cases.
        labels: for each case, whether its reference is a label.
        scored: the models' answers, in order of the models.
        figures: the models' metrics, in order of the models.
        judge: the judge, if there is one.
    """

    held_out: HeldOut
    labels: list[bool]
    scored: list[Scored]
    figures: list[Metrics]
    judge: EvaluatedModel | None

    def record(self, settings: GenerateSettings) -> dict[str, Any]:
        """Return metrics, settings and fingerprints as JSON values."""
        return {
            "version": __version__,
            "data": [str(path) for path in self.held_out.paths],
            "cases": len(self.held_out.cases),
            "dropped": self.held_out.dropped,
            "cases_sha256": self.held_out.fingerprint,
            "settings": settings.model_dump(mode="json", include=_SETTINGS),
            "evaluated_models": [
                {**_facts(scored.evaluated), "engine": scored.engine, **figures.record()}
                for scored, figures in zip(self.scored, self.figures, strict=True)
            ],
            "judge": _facts(self.judge) | _judge_prompt(settings) if self.judge else None,
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each case with all answers to it, as JSON values."""
        for index, case in enumerate(self.held_out.cases):
            yield {
                "instruction": case.instruction,
                "input": case.sample.input,
                "reference": case.reference,
                "is_label": self.labels[index],
                "answers": [_row(scored, index) for scored in self.scored],
            }

    def write(self, out: Path, settings: GenerateSettings) -> None:
        """Write `answers.jsonl` and then `eval.json` to a writable folder; each file is complete or absent."""
        with open_writer(out / ANSWERS) as writer:
            for row in self.rows():
                writer.write(row)
        with replace_atomically(out / SUMMARY) as stream:
            stream.write(orjson.dumps(self.record(settings), option=orjson.OPT_INDENT_2))


def _judge_prompt(settings: GenerateSettings) -> dict[str, Any]:
    return {"prompt_texts": settings.prompts.used([judge_prompt(settings.lang)])}


def _facts(evaluated: EvaluatedModel) -> dict[str, Any]:
    adapter = str(evaluated.adapter) if evaluated.adapter else None
    return {
        "name": evaluated.name,
        "template": evaluated.template,
        **evaluated.chosen.facts(),
        "adapter_path": adapter,
    }


def _row(scored: Scored, index: int) -> dict[str, Any]:
    surprise = scored.surprises[index]
    row: dict[str, Any] = {
        "evaluated": scored.evaluated.name,
        "answer": scored.answers[index],
        "finish_reason": scored.completions[index].finish_reason,
        "tokens": scored.completions[index].completion_tokens,
        "rouge_l": scored.rouge_l[index],
        "exact_match": scored.matches[index],
        "nats": surprise.nats,
        "supervised_tokens": surprise.tokens,
    }
    if scored.judgements:
        judgement = scored.judgements[index]
        row["judged"] = {"outcome": judgement.outcome, "as_second": judgement.as_second, "as_first": judgement.as_first}
    return row


def fit_to_context(
    held_out: HeldOut, evaluated_models: Sequence[EvaluatedModel], settings: GenerateSettings
) -> list[list[Example]]:
    """Return each model's references as examples, and drop the cases that exceed the context of a model.

    A case is kept if its prompt leaves room for `max_tokens` and for the reference under every model's template, so
    that all models are measured on the same cases.

    Raises:
        UsageError: no case is left, or a tokenizer is unusable.
    """
    columns = [build_references(held_out.cases, each) for each in evaluated_models]
    kept: list[Case] = []
    fitting: list[list[Example]] = []
    for case, *examples in zip(held_out.cases, *columns, strict=True):
        whole = [example for example in examples if isinstance(example, Example)]
        if len(whole) < len(examples):
            held_out.drop(next(reason for reason in examples if isinstance(reason, str)))
        elif any(_needs(example, settings.max_tokens) > settings.max_model_len for example in whole):
            held_out.drop(f"longer than {settings.max_model_len} tokens with --max-tokens {settings.max_tokens}")
        else:
            kept.append(case)
            fitting.append(whole)
    if not kept:
        reasons = ", ".join(f"{number} {reason}" for reason, number in held_out.dropped.items())
        message = f"--data: no task is left ({reasons}); see --max-model-len and --max-tokens"
        raise UsageError(message)
    held_out.cases = kept
    return [list(column) for column in zip(*fitting, strict=True)]


def _needs(example: Example, max_tokens: int) -> int:
    return max(len(example.input_ids), prompt_length(example) + max_tokens)


@dataclass(frozen=True, slots=True)
class Evaluator:
    """The environment of an evaluation.

    Attributes:
        settings: of the engines and the requests.
        start_engine: starts the engine of a model.
        console: for progress.
        interrupt: a signal ends the evaluation after the current batch.
    """

    settings: GenerateSettings
    start_engine: StartEngine
    console: Console
    interrupt: Interrupt

    def evaluate(
        self,
        held_out: HeldOut,
        references: Sequence[Sequence[Example]],
        evaluated_models: Sequence[EvaluatedModel],
        judge: EvaluatedModel | None,
    ) -> Evaluation | None:
        """Return the evaluation, or None if a signal ended it.

        Args:
            held_out: the cases, all of which fit the contexts.
            references: each model's references, from `fit_to_context`.
            evaluated_models: at least one, or two with a judge; the others are compared with the first.
            judge: the judge's model; None for no judgements.

        Raises:
            UserFacingError: an engine could not start, or died and did not come back; or the libraries are missing.
        """
        asked: list[tuple[list[Completion], dict[str, str]]] = []
        for evaluated in evaluated_models:
            requests = [
                evaluated.request(RequestKey(index, "answer", 0), case, self.settings.max_tokens)
                for index, case in enumerate(held_out.cases)
            ]
            found, description = self._ask(evaluated, self.settings, requests, "answers")
            if not self._goes_on():
                return None
            asked.append(([found[request.key] for request in requests], description))
        answers = [[completion.text.strip() for completion in completions] for completions, _ in asked]
        judgements = self._judge(judge, held_out.cases, answers) if judge else [[] for _ in evaluated_models]
        surprises = [self._surprises(*each) for each in zip(evaluated_models, references, strict=True)]
        if not self._goes_on():
            return None
        scorer = Scorer(held_out.cases, self.settings.lang)
        scored = [
            Scored(
                evaluated,
                answers[number],
                completions,
                scorer.rouge_l(answers[number]),
                scorer.matches(answers[number]),
                surprises[number],
                judgements[number],
                description,
            )
            for number, (evaluated, (completions, description)) in enumerate(zip(evaluated_models, asked, strict=True))
        ]
        return Evaluation(held_out, scorer.labels, scored, make_metrics(scored, held_out.cases), judge)

    def _goes_on(self) -> bool:
        return self.interrupt.signum is None

    def _ask(
        self, evaluated: EvaluatedModel, settings: GenerateSettings, requests: Sequence[Request], what: str
    ) -> tuple[dict[RequestKey, Completion], dict[str, str]]:
        """Return the completions by a model's own engine, which is then closed, and that engine's description."""
        engine = self.start_engine(evaluated.chosen, settings)
        try:
            with waiting(self.console, f"starting vLLM on {evaluated.name}"):
                engine.wait_until_ready(self._goes_on)
            started = time.monotonic()
            with counting(self.console, f"{evaluated.name}: {what},") as advance:
                found = ask(engine, requests, self._goes_on, advance)
            seconds = format_seconds(time.monotonic() - started)
            self.console.print(f"{evaluated.name}: {len(found)} {what} in {seconds}")
            return found, engine.description
        finally:
            engine.close()

    def _judge(
        self, judge: EvaluatedModel, cases: Sequence[Case], answers: Sequence[Sequence[str]]
    ) -> list[list[Judgement]]:
        """Return each model's judgements against the first model; the list of the first is empty."""
        # The judge's prompt contains two answers and may be longer than any model's prompt.
        context = min(judge.folder.context, 2 * self.settings.max_model_len)
        settings = self.settings.model_copy(update={"max_model_len": context})
        asking = PairwiseJudge(self.settings.lang, chats=judge.template == "chat", prompts=self.settings.prompts)
        first, *others = answers
        requests = []
        for number, other in enumerate(others):
            for index, (case, own, theirs) in enumerate(zip(cases, other, first, strict=True)):
                if own != theirs:
                    keys = [RequestKey(index, STAGE, 2 * number + order) for order in range(2)]
                    requests += [
                        asking.request(keys[0], case, theirs, own),
                        asking.request(keys[1], case, own, theirs),
                    ]
        found = self._ask(judge, settings, requests, "judgements")[0] if requests else {}
        told: dict[RequestKey, Said | None] = {key: asking.read(completion) for key, completion in found.items()}

        def judgement(number: int, index: int) -> Judgement:
            as_second, as_first = (told.get(RequestKey(index, STAGE, 2 * number + order)) for order in range(2))
            return Judgement(as_second, as_first, same=others[number][index] == first[index])

        return [[], *([judgement(number, index) for index in range(len(cases))] for number in range(len(others)))]

    def _surprises(self, evaluated: EvaluatedModel, references: Sequence[Example]) -> list[Surprise]:
        """Return the losses of the references under a model; fewer if a signal arrived."""
        surprises: list[Surprise] = []
        with counting(self.console, f"{evaluated.name}: losses,") as advance:
            for batch in measure_losses(evaluated, references, self._goes_on):
                surprises += batch
                advance(len(batch))
        return surprises
