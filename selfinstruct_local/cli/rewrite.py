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

RunOption = Annotated[Path, typer.Option(help="Source run; only its accepted tasks are read.")]
IntoOption = Annotated[Path, typer.Option(metavar="NEWRUN", help="Folder of the new run. An existing run is resumed.")]
RulesOption = Annotated[
    str | None, typer.Option(help="Rule set. [default: that of --run]", autocompletion=completing(RULE_SETS))
]
MaxModelLenOption = Annotated[int | None, typer.Option(help="Context length in tokens. [default: 2048]")]
SeedOption = Annotated[int | None, typer.Option(help="Random seed of the choice of tasks. [default: 0]")]
InFlightOption = Annotated[int | None, typer.Option(help="Maximum concurrent requests. [default: 32]")]
MemoryOption = Annotated[float | None, typer.Option(help="KV cache size on a CPU, in GiB. [default: 2]")]
AdapterOption = Annotated[
    Path | None, typer.Option(help="LoRA adapter folder. Without --model, the adapter names the base.")
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(help="URL of an OpenAI-compatible server to use instead of a local engine; may be repeated."),
]


def translate(
    context: typer.Context,
    *,
    run: RunOption,
    to: Annotated[
        str,
        typer.Option(help="Target language: zh, or en for tasks in Chinese.", autocompletion=languages),
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
    """Translate tasks of a run with a local model into a new run that has both. Re-run the same command to resume."""
    check_choice("--to", to, LANGUAGES)
    _rewrite("translate", context.params)


def polish(
    context: typer.Context,
    *,
    run: RunOption,
    into: IntoOption,
    fraction: Annotated[float, typer.Option(help="Share of the tasks to rewrite.")] = 1.0,
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
    """Rewrite the outputs of a run with a local model into a new run. Re-run the same command to resume."""
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
        message = f"--into {into}: is the source run; name a new folder"
        raise UsageError(message)
    dry_run: bool = options["dry_run"]
    refuse_json_of_nothing(as_json=options["as_json"], dry_run=dry_run)
    check_config(command, options["config"])
    # The profile has no settings of its own; no new task is requested here.
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
    """Print what a session would do, and its first request."""
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
            ("into", f"{store.folder}, {'resumed' if decided else 'new'}"),
            ("tasks", f"{jobs} selected, {decided} decided, {jobs - decided} remaining"),
            *describe_settings(rewriting.settings, model),
            *describe_prompts(rewriting.settings, rewriting.work.profile),
            *describe_rules(rewriting.settings),
        ]
    )
    request = next_request(store, rewriting.settings, [], rewriting.work)
    if request is None:
        print_facts([("to do", "no request: the remaining jobs need no model")])
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
        f"run: {totals.jobs - refused} of {jobs} selected tasks {done}, {jobs - totals.jobs} remaining; "
        f"{totals.accepted} tasks in total; rejected: {describe_rejected(totals)}"
    )
    report_run(store, outcome, line, {"chosen": jobs, "rewritten": totals.jobs - refused} if as_json else None)
    if outcome.reason in BUDGETS:
        message = (
            f"the budget of {outcome.reason} is spent at {totals.jobs} of {jobs} tasks; re-run the same command with a "
            "larger budget in --config to resume"
        )
        raise PartlyDoneError(message)
