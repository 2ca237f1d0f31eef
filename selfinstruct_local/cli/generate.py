"""`selfinstruct generate`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct_local.cli.choices import ANSWERS, PROFILES, RULE_SETS, SWITCH, completing, languages
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
    note_seeds,
    note_unused_prompts,
    open_store,
    report_run,
    run_on_display,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfinstruct_local.generate.job import Profile
    from selfinstruct_local.generate.launch import ChosenModel
    from selfinstruct_local.generate.run import Outcome
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.runs.store import RunStore
    from selfinstruct_local.task import Task


def generate(
    context: typer.Context,
    *,
    run: Annotated[Path, typer.Option(help="Folder of the run; an existing run goes on.")],
    model: ModelOption = None,
    config: ConfigOption = None,
    num: Annotated[int | None, typer.Option(help="Accepted tasks to stop at. [default: 100]")] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="How to ask; see 'selfinstruct profiles'. [default: self-instruct]",
            autocompletion=completing(PROFILES),
        ),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(help="Of prompts, seeds and rules: en or zh. [default: en]", autocompletion=languages),
    ] = None,
    seeds: Annotated[
        list[Path] | None, typer.Option(help="File of seed tasks; may be repeated. Left out: ours.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="ROUGE-L F above which an instruction is a near copy. [default: the profile's]")
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(help="Rule set. [default: the profile's]", autocompletion=completing(RULE_SETS)),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Least mean log-probability a token, e.g. -1.5. [default: the profile's]"),
    ] = None,
    prompt_format: PromptFormatOption = None,
    prompts: PromptsOption = None,
    structured: Annotated[
        str,
        typer.Option(
            help="on, off or auto: hold the model to a JSON schema and to allowed answers.",
            autocompletion=completing(SWITCH),
        ),
    ] = "auto",
    answers: Annotated[
        str | None,
        typer.Option(
            help="Length of answers: short (one paragraph) or full. [default: short for weights below 2 GB, else full]",
            autocompletion=completing(ANSWERS),
        ),
    ] = None,
    instances_per_task: Annotated[
        int | None,
        typer.Option(help="Most worked cases per task, of profile self-instruct-2022. [default: the profile's]"),
    ] = None,
    answers_per_task: Annotated[
        int | None,
        typer.Option(help="Answers per task, of which the one that most agree on is kept. [default: 1]"),
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="What tasks may be about; may be repeated, one is drawn for each prompt.")
    ] = None,
    classification_share: Annotated[
        float | None, typer.Option(help="Share of prompts that ask for classification tasks. [default: the profile's]")
    ] = None,
    input_share: Annotated[
        float | None,
        typer.Option(help="Share of the other prompts that ask for tasks with an input. [default: the profile's]"),
    ] = None,
    favor_rare: Annotated[
        bool | None, typer.Option(help="Show tasks that are unlike the rest of the pool more often. [default: no]")
    ] = None,
    judge: Annotated[
        bool | None, typer.Option(help="Let the model give each task points from 1 to 5. [default: no]")
    ] = None,
    min_judge: Annotated[float | None, typer.Option(help="Least of the judge's points. [default: 3]")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy. [default: the profile's]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus share. [default: the profile's]")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a completion; clamped to the context. [default: the profile's]")
    ] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Context in tokens. [default: 2048, LLaMA-7B's]")] = None,
    tasks_per_prompt: Annotated[
        int | None, typer.Option(help="New tasks asked for in one job. [default: the profile's]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random choices. [default: 0]")] = None,
    window: Annotated[
        int | None, typer.Option(help="Jobs a prompt may lag behind the pool. [default: the profile's]")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Jobs in a row without an accepted task before giving up. [default: 200]")
    ] = None,
    token_budget: Annotated[int | None, typer.Option(help="Generated tokens to stop at, over all starts.")] = None,
    request_budget: Annotated[int | None, typer.Option(help="Completions to stop at, over all starts.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes after which this start stops.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Requests in flight. [default: 32]")] = None,
    dtype: DtypeOption = None,
    memory_gb: Annotated[float | None, typer.Option(help="GiB of KV cache on a CPU. [default: 2]")] = None,
    gpu_memory_share: Annotated[float | None, typer.Option(help="Share of GPU memory. [default: 0.9]")] = None,
    tensor_parallel: Annotated[int | None, typer.Option(help="GPUs for one copy. [default: 1]")] = None,
    quantization: Annotated[
        str | None, typer.Option(help="vLLM's method for the weights, e.g. fp8. [default: as the folder says]")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="LoRA folder; without --model, over the base that it names.")
    ] = None,
    hang_seconds: Annotated[
        float | None, typer.Option(help="Silence after which the engine is started again. [default: 300]")
    ] = None,
    restarts: Annotated[
        int | None, typer.Option(help="Starts of the engine in a row without a completion. [default: 3]")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="URL of an OpenAI-compatible server to ask instead, such as http://127.0.0.1:8000/v1; may be "
            "repeated. Its key: $SELFINSTRUCT_API_KEY."
        ),
    ] = None,
    request_seconds: Annotated[
        float | None, typer.Option(help="Time-out of a request to a server. [default: 600]")
    ] = None,
    outage_seconds: Annotated[
        float | None, typer.Option(help="Time all servers may be gone before giving up. [default: 300]")
    ] = None,
    fork: Annotated[
        Path | None, typer.Option(metavar="NEWRUN", help="Leave --run as it is; start NEWRUN from its pool.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write new tasks with a local model until --num are accepted. The same command resumes."""
    from selfinstruct_local.config.loading import load_settings
    from selfinstruct_local.generate.create import open_run
    from selfinstruct_local.generate.launch import choose_model, fit_to_model
    from selfinstruct_local.generate.profiles.registry import make_profile
    from selfinstruct_local.generate.settings import GenerateSettings
    from selfinstruct_local.seeds import seed_file

    refuse_json_of_nothing(as_json=as_json, dry_run=dry_run)
    flags = {**context.params, "topics": topic, "structured": _on_or_off("--structured", structured)}
    settings = load_settings(GenerateSettings, config, flags)
    chosen = choose_model(model, settings, partial(find_or_prepare, may_prepare=not dry_run), adapter)
    settings = fit_to_model(settings, chosen, config, flags)
    seed_files = seeds or [seed_file(settings.lang)]
    with open_store(fork or run, dry_run=dry_run) as store:
        if fork:
            _fork(run, store)
        seed_tasks = open_run(store, settings, chosen.facts(), seed_files)
        asking = make_profile(settings)
        note_unused_prompts(settings, asking)
        note_seeds(settings, seed_tasks, given=bool(seeds))
        if dry_run:
            _show_plan(store, settings, chosen, seed_tasks, asking)
        else:
            run_on_display(
                store, settings, chosen, seed_tasks, lambda outcome: _report(store, settings, outcome, as_json=as_json)
            )


def _show_plan(
    store: "RunStore",
    settings: "GenerateSettings",
    model: "ChosenModel",
    seeds: "Sequence[Task]",
    profile: "Profile",
) -> None:
    """Prints what a start would do, and the request it would begin with."""
    from selfinstruct_local.cli.dry_run import (
        describe_prompts,
        describe_rules,
        describe_settings,
        next_request,
        print_facts,
        show_request,
    )

    totals = store.totals()
    drawn = f"temperature {settings.temperature}, top_p {settings.top_p}, at most {settings.max_tokens} tokens"
    print_facts(
        [
            ("run", f"{store.folder}, {'goes on' if totals.jobs else 'new'}"),
            ("tasks", f"{totals.accepted} accepted of {settings.num} wanted, {totals.jobs} jobs decided"),
            *describe_settings(settings, model),
            ("profile", f"{settings.profile}, {settings.tasks_per_prompt} tasks a prompt, {len(seeds)} seeds"),
            *describe_prompts(settings, profile),
            ("sampling", f"{drawn}, seed {settings.seed}"),
            *describe_rules(settings),
        ]
    )
    if totals.accepted >= settings.num:
        print_facts([("to do", "nothing: all wanted tasks are accepted")])
    elif request := next_request(store, settings, seeds):
        show_request(request, model.folder)


def _on_or_off(flag: str, value: str) -> bool | None:
    from selfinstruct_local.errors import UsageError

    meanings = {"on": True, "off": False, "auto": None}
    if value not in meanings:
        message = f"{flag} {value}: on, off or auto"
        raise UsageError(message)
    return meanings[value]


def _fork(run: Path, store: "RunStore") -> None:
    from selfinstruct_local.generate.create import fork
    from selfinstruct_local.io.progress import stderr_console
    from selfinstruct_local.runs.store import RunStore

    with RunStore(run, read_only=True) as old:
        inherited = fork(old, store)
    stderr_console().print(f"{store.folder}: starts from the {inherited} tasks of {run}")


def _report(store: "RunStore", settings: "GenerateSettings", outcome: "Outcome", *, as_json: bool) -> None:
    from selfinstruct_local.errors import PartlyDoneError

    totals = store.totals()
    rejected = describe_rejected(totals)
    report_run(
        store,
        outcome,
        f"run: {totals.accepted} accepted of {settings.num} wanted, {totals.jobs} jobs; rejected: {rejected}",
        {"wanted": settings.num} if as_json else None,
    )
    if outcome.reason in BUDGETS:
        message = (
            f"the budget of {outcome.reason} is spent at {totals.accepted} of {settings.num} tasks; the same command "
            f"with a larger {BUDGETS[outcome.reason]} goes on"
        )
        raise PartlyDoneError(message)
    if outcome.reason == "stalled":
        message = (
            f"nothing new in {settings.patience} jobs in a row, so the run stopped at {totals.accepted} of "
            f"{settings.num} tasks (rejected: {rejected}); what was accepted stands. A higher --temperature, more "
            "--seeds or a larger model may help, in a new run; --patience waits longer in this one"
        )
        raise PartlyDoneError(message)
