"""`selfinstruct eval`."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from selfinstruct_local.cli.choices import TEMPLATES, completing, languages
from selfinstruct_local.cli.options import (
    ConfigOption,
    DryRunOption,
    DtypeOption,
    PromptsOption,
    QuietOption,
    refuse_json_of_nothing,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from selfinstruct_local.evaluate.cases import HeldOut
    from selfinstruct_local.evaluate.evaluated_models import EvaluatedModel
    from selfinstruct_local.evaluate.evaluation import Evaluation
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.templates.alpaca import TemplateName
    from selfinstruct_local.train.data import Example


def eval_(
    context: typer.Context,
    *,
    model: Annotated[
        list[str],
        typer.Option(
            help="Model folder, adapter folder of 'selfinstruct train', or name of a prepared model; may be repeated. "
            "The others are compared with the first."
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(help="Held-out tasks with outputs: a file or a run folder. May be repeated."),
    ],
    judge: Annotated[
        str | None, typer.Option(help="Judge model of pairwise comparisons, in both orders; named as in --model.")
    ] = None,
    prompts: PromptsOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for eval.json and answers.jsonl.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model of the adapters. [default: the one each was trained on]")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Prompt template of all models: alpaca or chat. [default: as trained, else chat if it has one]",
            autocompletion=completing(TEMPLATES),
        ),
    ] = None,
    config: ConfigOption = None,
    num: Annotated[
        int | None, typer.Option(help="Maximum number of tasks, sampled with --seed. [default: 200]")
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(
            help="Language of the tasks: en or zh; selects the ROUGE-L tokenizer. [default: en]",
            autocompletion=languages,
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Maximum tokens per completion. [default: 256]")] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Context length in tokens. [default: 2048, or the shortest of the models']")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the sample of tasks. [default: 0]")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Maximum concurrent requests. [default: 32]")] = None,
    dtype: DtypeOption = None,
    memory_gb: Annotated[float | None, typer.Option(help="KV cache size on a CPU, in GiB. [default: 2]")] = None,
    gpu_memory_share: Annotated[
        float | None, typer.Option(help="Share of each GPU's memory for vLLM. [default: 0.9]")
    ] = None,
    tensor_parallel: Annotated[int | None, typer.Option(help="GPUs per model replica. [default: 1]")] = None,
    dry_run: DryRunOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the contents of eval.json.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Compare models on held-out tasks: ROUGE-L, exact match, finish reasons, loss, and a judge's preference."""
    import orjson

    from selfinstruct_local.cli.settings import check_config
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.evaluate.cases import read_held_out
    from selfinstruct_local.evaluate.evaluated_models import find_evaluated_models
    from selfinstruct_local.evaluate.evaluation import fit_to_context
    from selfinstruct_local.evaluate.metrics import table
    from selfinstruct_local.io.files import check_writable_folder
    from selfinstruct_local.io.progress import stderr_console, waiting

    refuse_json_of_nothing(as_json=as_json, dry_run=dry_run)
    if template not in {None, "alpaca", "chat"}:
        message = f"--template {template}: use alpaca or chat"
        raise UsageError(message)
    if judge is not None and len(model) == 1:
        message = "--judge: compares answers with those of the first --model; add a second --model"
        raise UsageError(message)
    check_config("eval", config)
    settings = _settings(context, config, None)
    _check_prompts(settings, judge)
    held_out = read_held_out(data, settings.num, settings.seed)
    evaluated_models = find_evaluated_models(model, cast("TemplateName | None", template), base)
    referee = find_evaluated_models([judge], base=base, flag="--judge")[0] if judge else None
    settings = _settings(context, config, min(each.folder.context for each in evaluated_models))
    for each in evaluated_models:
        each.folder.check_context(settings.max_model_len)
    if out is not None and not dry_run:
        check_writable_folder(out, "--out")
    console = stderr_console()
    with waiting(console, f"reading {len(held_out.cases)} tasks"):
        references = fit_to_context(held_out, evaluated_models, settings)
    _describe(held_out, evaluated_models, console)
    if dry_run:
        _show_plan(held_out, evaluated_models, referee, settings, out)
        return
    evaluation = _run(held_out, references, evaluated_models, referee, settings, out)
    if out is not None:
        evaluation.write(out, settings)
    if as_json:
        typer.echo(orjson.dumps(evaluation.record(settings)).decode())
    else:
        typer.echo("\n".join(table(evaluation.figures)))


def _check_prompts(settings: "GenerateSettings", judge: str | None) -> None:
    """Raise UsageError if there are prompts but no judge; print a note about prompts that are not used."""
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.evaluate.pairwise import judge_prompt
    from selfinstruct_local.io.progress import stderr_console

    if settings.prompts.folder is not None and judge is None:
        message = f"--prompts {settings.prompts.folder}: only the judge's prompt can be replaced; add --judge MODEL"
        raise UsageError(message)
    if note := settings.prompts.note_unused([judge_prompt(settings.lang)], f"'eval' for --lang {settings.lang}"):
        stderr_console().print(note)


def _settings(context: typer.Context, config: Path | None, shortest: int | None) -> "GenerateSettings":
    """Return the settings from file and flags; the default context length is at most `shortest` tokens."""
    from selfinstruct_local.cli.settings import EVAL_BASE, LLAMA_CONTEXT
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.generate.settings import GenerateSettings

    base = {**EVAL_BASE, "max_model_len": min(LLAMA_CONTEXT, shortest or LLAMA_CONTEXT)}
    # The setting `judge` is about scoring tasks, this flag names a model.
    return load_settings(GenerateSettings, config, {**context.params, "judge": None}, base=base)


def _show_plan(
    held_out: "HeldOut",
    evaluated_models: "Sequence[EvaluatedModel]",
    judge: "EvaluatedModel | None",
    settings: "GenerateSettings",
    out: Path | None,
) -> None:
    """Print the plan and the first request to each evaluated model."""
    from selfinstruct_local.cli.dry_run import check_could_be_made, print_facts, show_request
    from selfinstruct_local.engines.base import RequestKey

    if out is not None:
        check_could_be_made(out, "--out")
    told = [("out", str(out))] if out else []
    told += [("judge", f"{judge.name}, template {judge.template}")] if judge else []
    print_facts([("tasks", len(held_out.cases)), ("context", f"{settings.max_model_len} tokens"), *told])
    for evaluated in evaluated_models:
        typer.echo("")
        print_facts([("evaluated", f"{evaluated.name}, template {evaluated.template}")])
        request = evaluated.request(RequestKey(0, "answer", 0), held_out.cases[0], settings.max_tokens)
        show_request(request, evaluated.folder)


def _describe(held_out: "HeldOut", evaluated_models: "Sequence[EvaluatedModel]", console: "Console") -> None:
    console.print(f"evaluating on {len(held_out.cases)} tasks")
    for reason, number in held_out.dropped.items():
        console.print(f"  left out {number}: {reason}")
    for evaluated in evaluated_models:
        console.print(f"{evaluated.name}: template {evaluated.template}")


def _run(
    held_out: "HeldOut",
    references: "Sequence[Sequence[Example]]",
    evaluated_models: "Sequence[EvaluatedModel]",
    judge: "EvaluatedModel | None",
    settings: "GenerateSettings",
    out: Path | None,
) -> "Evaluation":
    """Return the evaluation; the engine log is in `out`, or in a temporary folder that is deleted on success.

    Raises:
        Exit: a signal ended the evaluation, with code 130 or 143.
    """
    from selfinstruct_local.evaluate.evaluation import Evaluator
    from selfinstruct_local.generate.launch import launch
    from selfinstruct_local.io.interrupt import SIGNAL_EXIT, interruptible
    from selfinstruct_local.io.progress import stderr_console

    aside = out or Path(tempfile.mkdtemp(prefix="selfinstruct-eval-"))
    with interruptible() as interrupt:
        evaluator = Evaluator(
            settings, lambda model, own: launch(model, own, aside / "engine.log"), stderr_console(), interrupt
        )
        evaluation = evaluator.evaluate(held_out, references, evaluated_models, judge)
    if out is None:
        shutil.rmtree(aside)
    if evaluation is None:
        stderr_console().print("interrupted by a signal; nothing was written")
        raise typer.Exit(SIGNAL_EXIT + (interrupt.signum or 0))
    return evaluation
