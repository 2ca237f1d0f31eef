"""`selfinstruct filter --engine ray`: checks its options and runs the filter on Ray."""

from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct_local.cli.filter_choices import FilterChoices, SettledChoices, tell_silent

if TYPE_CHECKING:
    from selfinstruct_local.cluster.filtering import ClusterCounts


def check_ray_choices(choices: FilterChoices, out: Path | None, rejects: Path | None, into: Path | None) -> Path:
    """Return the output folder, after a check that the filter on Ray supports the options.

    Raises:
        UsageError: an option is not supported on Ray, or the folder is not empty or cannot be created.
    """
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.files import check_new_folder

    for given, message in (
        (
            rejects,
            f"--rejects {rejects}: --engine ray writes rejects into the folder 'rejected' of --out; remove it",
        ),
        (into, f"--into {into}: --engine ray creates no run; remove --engine ray and name one run"),
        (choices.verify, "--verify: not supported by --engine ray; remove it"),
        (choices.prefilter == "none", "--prefilter none: not supported by --engine ray; use exact or minhash"),
    ):
        if given:
            raise UsageError(message)
    if not out:
        message = "--out is missing: name the output folder of --engine ray"
        raise UsageError(message)
    check_new_folder(out, "--out")
    return out


def _check_files(files: list[Path]) -> None:
    from selfinstruct_local.errors import UsageError
    from selfinstruct_local.io.reader import reading

    for path in files:
        with reading(path):
            if not path.is_file():
                what = (
                    "no such file" if not path.exists() else "is a folder" if path.is_dir() else "is not a regular file"
                )
                message = f"{path}: {what}; --engine ray reads each file twice, name a regular file"
                raise UsageError(message)


def filter_on_ray(
    files: list[Path],
    runs: list[Path],
    choices: SettledChoices,
    out: Path,
    *,
    address: str | None,
    workers: int | None,
    skip_bad_lines: bool,
) -> "ClusterCounts":
    """Filter files, or the candidates of runs in order, into a folder and return the counts.

    Raises:
        UsageError: Ray is not available, or a source cannot be read.
        RunError: Ray could not finish the work.
    """
    from selfinstruct_local.cluster.filtering import ClusterFilter, NoveltySettings
    from selfinstruct_local.cluster.reading import ScreenSettings
    from selfinstruct_local.cluster.session import ray_session
    from selfinstruct_local.cluster.sources import InputFile
    from selfinstruct_local.io.progress import stderr_console

    _check_files([*files, *choices.against, *choices.decontaminate])
    sources = [
        *(InputFile.of(path, known=True) for path in choices.against),
        *(InputFile.of(run, run=True, known=True) for run in runs),
        *(InputFile.of(path) for path in files),
        *(InputFile.of(run, run=True) for run in runs),
    ]
    screen = ScreenSettings(
        rules=choices.rules,
        lang=choices.lang,
        limits=choices.limits,
        decontaminate=tuple(path.absolute() for path in choices.decontaminate),
        ngram=choices.ngram,
        tokenizer=choices.tokenizer,
        skip_bad_lines=skip_bad_lines,
    )
    novelty = NoveltySettings(choices.threshold, minhash=choices.prefilter == "minhash")
    console = stderr_console()
    console.print(f"connecting to Ray at {address}" if address else "starting Ray")
    with ray_session(address, workers) as processors:
        counts = ClusterFilter(sources, screen, novelty, workers=processors, say=console.print).filter_into(
            out.absolute()
        )
    tell_silent(counts.silent)
    return counts
