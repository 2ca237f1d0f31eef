"""`selfinstruct filter --engine ray`."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfinstruct_local.cli.filter_choices import DEFAULT_LANG, DEFAULT_RULES, DEFAULT_THRESHOLD, FilterChoices
from selfinstruct_local.filter.limits import Limits

if TYPE_CHECKING:
    from selfinstruct_local.cluster.filtering import ClusterCounts


def check_ray_choices(choices: FilterChoices, out: Path | None, rejects: Path | None, into: Path | None) -> Path:
    """Refuses what the filter on Ray does not do; gives back the folder for its output, which can be written.

    Raises:
        WrongUseError: an option is for one machine, or the folder holds something or cannot be made.
    """
    from selfinstruct_local.errors import WrongUseError
    from selfinstruct_local.files import check_name, check_writable_folder

    for given, message in (
        (
            rejects,
            f"--rejects {rejects}: with --engine ray rejects stand in the folder 'rejected' of --out; leave it out",
        ),
        (into, f"--into {into}: --engine ray makes no run; leave --engine out for one run"),
        (choices.verify, "--verify: checks the filter of one machine; leave --engine ray out"),
        (choices.prefilter == "none", "--prefilter none: --engine ray joins by exact or minhash"),
    ):
        if given:
            raise WrongUseError(message)
    if not out:
        message = "--out is missing: name the folder for what --engine ray writes"
        raise WrongUseError(message)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"--out {out}: is there already; --engine ray writes a folder, so name one that is missing or empty"
        raise WrongUseError(message)
    if out.is_mount():
        message = f"--out {out}: a whole file system is mounted there; name a folder in it"
        raise WrongUseError(message)
    check_name(out, "--out")
    check_writable_folder(out.parent, "--out")
    return out


def _check_files(files: list[Path]) -> None:
    from selfinstruct_local.errors import WrongUseError

    for path in files:
        if not path.is_file():
            what = "no such file" if not path.exists() else "is a folder" if path.is_dir() else "is no file"
            message = f"{path}: {what}; --engine ray reads files, each twice"
            raise WrongUseError(message)


def filter_on_ray(
    files: list[Path],
    runs: list[Path],
    choices: FilterChoices,
    out: Path,
    *,
    address: str | None,
    workers: int | None,
    skip_bad_lines: bool,
) -> "ClusterCounts":
    """Filters files, or the candidates of runs one run after the other, into a folder.

    Raises:
        WrongUseError: Ray cannot be had, a source cannot be read, or runs were made under different settings.
        JobFailedError: Ray lost the work.
    """
    from selfinstruct_local.cluster.filtering import ClusterFilter, NoveltySettings
    from selfinstruct_local.cluster.reading import ScreenSettings
    from selfinstruct_local.cluster.session import ray_session
    from selfinstruct_local.cluster.sources import Source
    from selfinstruct_local.kernels import NoTokensWarning
    from selfinstruct_local.progress import stderr_console

    _check_files([*files, *choices.against, *choices.decontaminate])
    facts = _shared_facts(runs, choices)
    choices.limits = {**facts, **choices.limits}
    choices.default_to(
        facts.get("rules", DEFAULT_RULES), facts.get("threshold", DEFAULT_THRESHOLD), facts.get("lang", DEFAULT_LANG)
    )
    sources = [
        *(Source.of(path, known=True) for path in choices.against),
        *(Source.of(run, run=True, known=True) for run in runs),
        *(Source.of(path) for path in files),
        *(Source.of(run, run=True) for run in runs),
    ]
    screen = ScreenSettings(
        rules=choices.rules or DEFAULT_RULES,
        lang=choices.lang or DEFAULT_LANG,
        limits=Limits.of(choices.limits),
        decontaminate=tuple(path.absolute() for path in choices.decontaminate),
        ngram=choices.ngram,
        tokenizer=choices.tokenizer,  # type: ignore[arg-type]  # checked by then
        skip_bad_lines=skip_bad_lines,
    )
    novelty = NoveltySettings(choices.threshold or DEFAULT_THRESHOLD, minhash=choices.prefilter == "minhash")
    console = stderr_console()
    console.print(f"connecting to Ray at {address}" if address else "starting Ray")
    with ray_session(address, workers) as processors:
        counts = ClusterFilter(sources, screen, novelty, workers=processors, say=console.print).filter_into(
            out.absolute()
        )
    if counts.silent:
        message = (
            f"{counts.silent} texts have no token [a-z0-9] and are near none; --tokenizer unicode sees every script"
        )
        warnings.warn(message, NoTokensWarning, stacklevel=1)
    return counts


def _shared_facts(runs: list[Path], choices: FilterChoices) -> dict[str, Any]:
    """What the runs were decided by, as far as nothing else was asked for.

    Raises:
        WrongUseError: they differ in it.
    """
    from selfinstruct_local.errors import WrongUseError
    from selfinstruct_local.store import RunStore

    given = {name for name in ("rules", "threshold", "lang") if getattr(choices, name) is not None} | set(
        choices.limits
    )
    shared: dict[str, Any] = {}
    for number, run in enumerate(runs):
        with RunStore(run, read_only=True) as store:
            facts = store.facts()
        own = {name: facts[name] for name in ("rules", "threshold", "lang", *Limits._fields) if name in facts}
        if number == 0:
            shared = own
        for name in sorted((shared.keys() | own.keys()) - given):
            if shared.get(name) != own.get(name):
                mend = f"--{name}" if name in {"rules", "threshold", "lang"} else f"'{name}' in --config"
                values = f"{own.get(name)}, and {shared.get(name)} in {runs[0]}"
                message = f"--run {run}: {name} is {values}; name one with {mend}"
                raise WrongUseError(message)
    return shared
