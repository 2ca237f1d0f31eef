"""`selfinstruct seeds`: checks seed files, and converts other formats to seeds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfinstruct_local.cli.choices import languages

if TYPE_CHECKING:
    from selfinstruct_local.seedfiles.check import SeedCheck

app = typer.Typer(
    help="Check seed files, and convert other formats to seeds.", no_args_is_help=True, rich_markup_mode=None
)

LangOption = Annotated[
    str | None,
    typer.Option(
        help="Language of the seeds: en or zh. [default: detected from the instructions]", autocompletion=languages
    ),
]


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Seed file: JSONL, a JSON array, or Parquet.")],
    *,
    lang: LangOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as faults.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print only the distribution, as a Markdown table.")
    ] = False,
) -> None:
    """Report faults in a seed file and the distribution of its seeds. Only instructions and outputs are required."""
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.seedfiles.check import check_seeds  # imports numba

    if as_json and markdown:
        message = "--json --markdown: use only one of them"
        raise UsageError(message)
    found = check_seeds(file, lang)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(found.as_record(), option=orjson.OPT_NON_STR_KEYS).decode())
    elif markdown:
        from selfinstruct_local.seedfiles.spread import markdown_table

        typer.echo(markdown_table(f"`{file.name}`", found.rows()))
    else:
        typer.echo("\n".join(found.lines()))
    _fail_on_faults(found, strict=strict)


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Self-Instruct seeds or Alpaca records: JSONL, a JSON array, Parquet; or a .txt list."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="JSONL file of seeds to write.")],
    lang: LangOption = None,
    bare: Annotated[
        bool,
        typer.Option(
            "--bare", help="Import tasks without an output too, to be completed by hand; exit code 3 at the end."
        ),
    ] = False,
) -> None:
    """Convert the tasks of a file to seeds with unique ids, and check them."""
    from selfinstruct_local.errors import PartlyDoneError
    from selfinstruct_local.runs.targets import check_targets
    from selfinstruct_local.seedfiles.check import check_language, check_seeds  # imports numba
    from selfinstruct_local.seedfiles.convert import import_seeds

    check_language(lang)
    check_targets({"--out": out}, [file])
    imported = import_seeds(file, out, bare=bare)
    typer.echo(f"read {imported.seeds} {imported.kind}: {file}")
    typer.echo(f"wrote {imported.seeds} seeds, {imported.new_ids} new ids, {imported.cleaned} texts cleaned: {out}")
    found = check_seeds(out, lang, unfinished=bare)
    typer.echo("\n".join(found.lines()))
    if imported.without_output:
        message = (
            f"{out}: {imported.without_output} of {imported.seeds} seeds have no output yet; add them before use "
            f"('selfinstruct seeds check {out}' lists the seeds)"
        )
        raise PartlyDoneError(message)
    _fail_on_faults(found)


def _fail_on_faults(found: "SeedCheck", *, strict: bool = False) -> None:
    from selfinstruct_local.errors import RunError

    warnings = len(found.warnings) if strict else 0
    if not found.faults and not warnings:
        return
    counts = f"{len(found.faults)} fault(s)" + (f" and {warnings} warning(s)" if warnings else "")
    message = f"{found.path}: {counts} in {found.spread.seeds} seeds"
    raise RunError(message)
