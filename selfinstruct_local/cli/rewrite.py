"""`selfinstruct translate` and `selfinstruct polish`."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfinstruct_local.cli.choices import RULE_SETS, check_choice, completing, languages
from selfinstruct_local.cli.options import (
    ConfigOption,
    DryRunOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    PromptFormatOption,
    PromptsOption,
    QuietOption,
    find_or_prepare,
    refuse_json_of_nothing,
)
from selfinstruct_local.cli.running import (
    BUDGETS,
    describe_rejected,
    note_unused_prompts,
    open_store,
    report_run,
    run_on_display,
)
from selfinstruct_local.languages.base import LANGUAGES

if TYPE_CHECKING:
    from selfinstruct_local.generate.launch import ChosenModel
    from selfinstruct_local.generate.rewriting.profile import Command
    from selfinstruct_local.generate.rewriting.sources import Rewriting
    from selfinstruct_local.generate.run import Outcome
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.languages.base import Language
    from selfinstruct_local.runs.store import RunStore

RunOption = Annotated[Path, typer.Option(help="Run whose accepted tasks are taken; it is read only.")]
IntoOption = Annotated[Path, typer.Option(metavar="NEWRUN", help="Run to write into; one that was begun so goes on.")]
RulesOption = Annotated[
    str | None, typer.Option(help="Rule set. [default: that of --run]", autocompletion=completing(RULE_SETS))
]
MaxModelLenOption = Annotated[int | None, typer.Option(help="Context in tokens. [default: 2048]")]
SeedOption = Annotated[int | None, typer.Option(help="Of the choice of tasks. [default: 0]")]
InFlightOption = Annotated[int | None, typer.Option(help="Requests in flight. [default: 32]")]
MemoryOption = Annotated[float | None, typer.Option(help="GiB of KV cache on a CPU. [default: 2]")]
AdapterOption = Annotated[Path | None, typer.Option(help="LoRA folder; without --model, over the base that it names.")]
EndpointOption = Annotated[
    list[str] | None, typer.Option(help="URL of an OpenAI-compatible server to ask instead; may be repeated.")
]


def translate(
    context: typer.Context,
    *,
    run: RunOption,
    to: Annotated[
        str,
        typer.Option(help="Language to translate to: zh, or en for tasks in Chinese.", autocompletion=languages),
    ],
    into: IntoOption,
    fraction: Annotated[float, typer.Option(help="Share of the tasks in the other language to translate.")] = 0.3,
    model: ModelOption = None,
    config: ConfigOption = None,
    rules: RulesOption = None,
    threshold: Annotated[
        float | None, typer.Option(help="ROUGE-L F above which a translation is a near copy. [default: that of --run]")
    ] = None,
    prompt_format: PromptFormatOption = None,
    prompts: PromptsOption = None,
    max_model_len: MaxModelLenOption = None,
    seed: SeedOption = None,
    in_flight: InFlightOption = None,
    dtype: DtypeOption = None,
    memory_gb: MemoryOption = None,
    adapter: AdapterOption = None,
    endpoint: EndpointOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Translate tasks of a run with a local model into a run that holds both. The same command resumes."""
    check_choice("--to", to, LANGUAGES)
    _rewrite("translate", context.params)


def polish(
    context: typer.Context,
    *,
    run: RunOption,
    into: IntoOption,
    fraction: Annotated[float, typer.Option(help="Share of the tasks to polish.")] = 1.0,
    model: ModelOption = None,
    config: ConfigOption = None,
    rules: RulesOption = None,
    prompt_format: PromptFormatOption = None,
    prompts: PromptsOption = None,
    max_model_len: MaxModelLenOption = None,
    seed: SeedOption = None,
    in_flight: InFlightOption = None,
    dtype: DtypeOption = None,
    memory_gb: MemoryOption = None,
    adapter: AdapterOption = None,
    endpoint: EndpointOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put the outputs of a run into better words with a local model, in a new run. The same command resumes."""
    _rewrite("polish", context.params)


def _rewrite(command: "Command", options: Mapping[str, Any]) -> None:
    from selfinstruct_local.cli.settings import check_config
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.generate.launch import choose_model
    from selfinstruct_local.generate.rewriting.sources import open_rewriting
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.runs.store import RunStore

    run, into = options["run"], options["into"]
    to: Language | None = options.get("to")
    if run.resolve() == into.resolve():
        message = f"--into {into}: is the run that is read; name a new folder"
        raise UsageError(message)
    dry_run: bool = options["dry_run"]
    refuse_json_of_nothing(as_json=options["as_json"], dry_run=dry_run)
    check_config(command, options["config"])
    # A profile whose settings ask for nothing: no task is asked for here.
    settings = load_settings(GenerateSettings, options["config"], options, base={"profile": "alpaca"})
    with ExitStack() as stack:
        source = stack.enter_context(RunStore(run, read_only=True))
        find_folder = partial(find_or_prepare, may_prepare=not dry_run)
        model = choose_model(options["model"], settings, find_folder, options["adapter"])
        settings = _with_prompt_format(settings, model)
        store = stack.enter_context(open_store(into, "--into", dry_run=dry_run))
        rewriting = open_rewriting(store, source, command, settings, model.facts(), to=to, fraction=options["fraction"])
        note_unused_prompts(settings, rewriting.work.profile)
        if dry_run:
            _show_plan(store, source, rewriting, model)
            return
        run_on_display(
            store,
            rewriting.settings,
            model,
            [],
            lambda outcome: _report(store, rewriting, outcome, as_json=options["as_json"]),
            rewriting.work,
        )


def _show_plan(store: "RunStore", source: "RunStore", rewriting: "Rewriting", model: "ChosenModel") -> None:
    """Prints what a start would do, and the request it would begin with."""
    from selfinstruct_local.cli.dry_run import (
        describe_prompts,
        describe_rules,
        describe_settings,
        next_request,
        print_facts,
        show_request,
    )

    jobs, decided = rewriting.work.jobs, store.totals().jobs
    print_facts(
        [
            ("from", f"{source.folder}, {source.totals().accepted} tasks"),
            ("into", f"{store.folder}, {'goes on' if decided else 'new'}"),
            ("tasks", f"{jobs} chosen, {decided} of them decided, {jobs - decided} to come"),
            *describe_settings(rewriting.settings, model),
            *describe_prompts(rewriting.settings, rewriting.work.profile),
            *describe_rules(rewriting.settings),
        ]
    )
    request = next_request(store, rewriting.settings, [], rewriting.work)
    if request is None:
        print_facts([("to do", "nothing to ask: what is left needs no model")])
    else:
        show_request(request, model.folder)


def _with_prompt_format(settings: "GenerateSettings", model: "ChosenModel") -> "GenerateSettings":
    from selfinstruct_local.errors import UsageError

    if "prompt_format" not in settings.model_fields_set:
        return settings.model_copy(update={"prompt_format": "chat" if model.chats else "completion"})
    if settings.prompt_format == "chat" and model.folder is not None and not model.chats:
        message = f"--prompt-format chat: {model.folder.path.name} has no chat template; use completion"
        raise UsageError(message)
    return settings


def _report(store: "RunStore", rewriting: "Rewriting", outcome: "Outcome", *, as_json: bool) -> None:
    from selfinstruct_local.errors import PartlyDoneError

    totals = store.totals()
    jobs, refused = rewriting.work.jobs, sum(totals.rejected.values())
    done = "translated" if rewriting.work.profile.name == "translate" else "polished"
    line = (
        f"run: {totals.jobs - refused} of {jobs} chosen tasks {done}, {jobs - totals.jobs} to come; {totals.accepted} "
        f"tasks in all; rejected: {describe_rejected(totals)}"
    )
    report_run(store, outcome, line, {"chosen": jobs, "rewritten": totals.jobs - refused} if as_json else None)
    if outcome.reason in BUDGETS:
        message = (
            f"the budget of {outcome.reason} is spent at {totals.jobs} of {jobs} tasks; the same command with a larger "
            "one in --config goes on"
        )
        raise PartlyDoneError(message)
