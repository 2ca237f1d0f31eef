"""`selfinstruct generate`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct_local.cli.choices import ANSWERS, PROFILES, RULE_SETS, SUBJECTS, SWITCH, completing, languages
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
    run: Annotated[Path, typer.Option(help="Folder of the run. An existing run is resumed.")],
    model: ModelOption = None,
    config: ConfigOption = None,
    num: Annotated[int | None, typer.Option(help="Number of accepted tasks to stop at. [default: 100]")] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Generation profile; see 'selfinstruct profiles'. [default: self-instruct]",
            autocompletion=completing(PROFILES),
        ),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(help="Language of prompts, seeds and rules: en or zh. [default: en]", autocompletion=languages),
    ] = None,
    seeds: Annotated[
        list[Path] | None, typer.Option(help="File of seed tasks; may be repeated. [default: the built-in seeds]")
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
        typer.Option(help="Minimum mean log-probability per token, e.g. -1.5. [default: the profile's]"),
    ] = None,
    prompt_format: PromptFormatOption = None,
    prompts: PromptsOption = None,
    structured: Annotated[
        str,
        typer.Option(
            help="Structured outputs (JSON schema, allowed answers): on, off or auto.",
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
        typer.Option(help="Maximum instances per task, for profile self-instruct-2022. [default: the profile's]"),
    ] = None,
    answers_per_task: Annotated[
        int | None,
        typer.Option(help="Answers per task; the one on which most agree is kept. [default: 1]"),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            help="Subject of new tasks: any, or the field of the seeds. [default: seeds with --seeds, else any]",
            autocompletion=completing(SUBJECTS),
        ),
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="Topic of tasks; may be repeated, one is sampled per prompt.")
    ] = None,
    classification_share: Annotated[
        float | None, typer.Option(help="Share of prompts that ask for classification tasks. [default: the profile's]")
    ] = None,
    input_share: Annotated[
        float | None,
        typer.Option(help="Share of the other prompts that ask for tasks with an input. [default: the profile's]"),
    ] = None,
    favor_rare: Annotated[
        bool | None, typer.Option(help="Few-shot sampling in favor of tasks unlike the rest of the pool. [default: no]")
    ] = None,
    judge: Annotated[
        bool | None, typer.Option(help="Scores from 1 to 5 by the model for each task. [default: no]")
    ] = None,
    min_judge: Annotated[float | None, typer.Option(help="Minimum score by the judge. [default: 3]")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature; 0 is greedy. [default: the profile's]")
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling probability. [default: the profile's]")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Maximum tokens per completion; clamped to the context. [default: the profile's]")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="Context length in tokens. [default: 2048, LLaMA-7B's]")
    ] = None,
    tasks_per_prompt: Annotated[
        int | None, typer.Option(help="New tasks requested per prompt. [default: the profile's]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed. [default: 0]")] = None,
    window: Annotated[
        int | None, typer.Option(help="Maximum lag of the prompt pool, in jobs. [default: the profile's]")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Consecutive jobs without an accepted task before the run stops. [default: 200]")
    ] = None,
    token_budget: Annotated[int | None, typer.Option(help="Generated tokens to stop at, over all sessions.")] = None,
    request_budget: Annotated[int | None, typer.Option(help="Completions to stop at, over all sessions.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time limit of this session, in minutes.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Maximum concurrent requests. [default: 32]")] = None,
    dtype: DtypeOption = None,
    memory_gb: Annotated[float | None, typer.Option(help="KV cache size on a CPU, in GiB. [default: 2]")] = None,
    gpu_memory_share: Annotated[
        float | None, typer.Option(help="Share of each GPU's memory for vLLM. [default: 0.9]")
    ] = None,
    tensor_parallel: Annotated[int | None, typer.Option(help="GPUs per model replica. [default: 1]")] = None,
    quantization: Annotated[
        str | None, typer.Option(help="vLLM quantization method, e.g. fp8. [default: the model's]")
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="LoRA adapter folder. Without --model, the adapter names the base.")
    ] = None,
    hang_seconds: Annotated[
        float | None, typer.Option(help="Seconds without output after which the engine is restarted. [default: 300]")
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option(help="Consecutive engine starts without a completion before the run stops. [default: 3]"),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="URL of an OpenAI-compatible server to use instead of a local engine, such as "
            "http://127.0.0.1:8000/v1; may be repeated. API key: $SELFINSTRUCT_API_KEY."
        ),
    ] = None,
    request_seconds: Annotated[
        float | None, typer.Option(help="Timeout per request to a server, in seconds. [default: 600]")
    ] = None,
    outage_seconds: Annotated[
        float | None, typer.Option(help="Seconds without a reachable server before the run stops. [default: 300]")
    ] = None,
    fork: Annotated[
        Path | None,
        typer.Option(
            metavar="NEWRUN", help="Folder of a new run that starts from the pool of --run; --run stays unchanged."
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Generate tasks with a local model until --num are accepted. Re-run the same command to resume."""
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
    settings = fit_to_model(settings, chosen, config, flags, own_seeds=bool(seeds))
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
    """Print what a session would do, and its first request."""
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
            ("run", f"{store.folder}, {'resumed' if totals.jobs else 'new'}"),
            ("tasks", f"{totals.accepted} of {settings.num} accepted, {totals.jobs} jobs decided"),
            *describe_settings(settings, model),
            ("profile", f"{settings.profile}, {settings.tasks_per_prompt} tasks per prompt, {len(seeds)} seeds"),
            *describe_prompts(settings, profile),
            ("sampling", f"{drawn}, seed {settings.seed}"),
            *describe_rules(settings),
        ]
    )
    if totals.accepted >= settings.num:
        print_facts([("to do", "nothing: all tasks are accepted")])
    elif request := next_request(store, settings, seeds):
        show_request(request, model.folder)


def _on_or_off(flag: str, value: str) -> bool | None:
    from selfinstruct_local.errors import UsageError

    meanings = {"on": True, "off": False, "auto": None}
    if value not in meanings:
        message = f"{flag} {value}: use on, off or auto"
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
        f"run: {totals.accepted} of {settings.num} tasks accepted, {totals.jobs} jobs; rejected: {rejected}",
        {"wanted": settings.num} if as_json else None,
    )
    if outcome.reason in BUDGETS:
        message = (
            f"the budget of {outcome.reason} is spent at {totals.accepted} of {settings.num} tasks; re-run the same "
            f"command with a larger {BUDGETS[outcome.reason]} to resume"
        )
        raise PartlyDoneError(message)
    if outcome.reason == "stalled":
        message = (
            f"no task was accepted in {settings.patience} consecutive jobs, so the run stopped at {totals.accepted} of "
            f"{settings.num} tasks (rejected: {rejected}); the accepted tasks are kept. Try a higher --temperature, "
            "more --seeds or a larger model in a new run, or a larger --patience in this run"
        )
        raise PartlyDoneError(message)
