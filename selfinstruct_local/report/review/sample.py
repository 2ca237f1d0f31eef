"""Draws a stratified sample of tasks from runs and files, deterministic for a seed.

The strata are source, profile, classification or not, with input or not; for rejected tasks, source and rule. Places
are given to sources, and then to the strata of a source, in proportion to their tasks.
"""

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from selfinstruct_local.report.sources import Decided, ReportSource

Per = Literal["sample", "source", "rule"]
K = TypeVar("K", bound=Hashable)

SAID = {True: "yes", False: "no", None: "not said"}


class Stratum(NamedTuple):
    """The common properties of the tasks in a stratum.

    Attributes:
        source: position of the source.
        rule: the rule that rejected the tasks; empty for accepted tasks.
        profile: the generation profile; empty if none is recorded, and for rejected tasks.
        classification: `yes`, `no` or `not said`; empty for rejected tasks.
        with_input: whether the tasks have an input; None for rejected tasks.
    """

    source: int
    rule: str
    profile: str = ""
    classification: str = ""
    with_input: bool | None = None


class Drawn(NamedTuple):
    """A drawn task.

    Attributes:
        source: position of its source.
        decided: the task, with the rule that rejected it.
        instance: position of the shown instance; None if the task has none.
    """

    source: int
    decided: Decided
    instance: int | None


class StratumCount(NamedTuple):
    """The number of tasks in a stratum, and how many of them were drawn."""

    stratum: Stratum
    tasks: int
    drawn: int


class Draw(NamedTuple):
    """A sample in reading order, and the strata it was drawn from."""

    drawn: list[Drawn]
    strata: list[StratumCount]


def draw_sample(
    sources: Sequence[ReportSource],
    size: int,
    seed: int,
    *,
    per: Per = "sample",
    accepted: bool | None = None,
    rejected: bool | None = None,
) -> Draw:
    """Return a shuffled sample of tasks, drawn without replacement.

    Args:
        sources: runs and files.
        size: number of tasks to draw; all of them if there are fewer.
        seed: random seed.
        per: what `size` counts: tasks of the sample, of each source, or of each rule (accepted tasks are one group).
        accepted: whether to draw from the accepted tasks; None means yes, except if only rejected ones are wanted.
        rejected: whether to draw from the rejected tasks; None means no in runs and yes in files.
    """
    stream = random.Random(seed)  # noqa: S311 - a sample, no secret
    found: dict[Stratum, list[Decided]] = {}
    for position, source in enumerate(sources):
        for decided in _wanted(source, accepted=accepted, rejected=rejected):
            found.setdefault(_stratum(position, decided), []).append(decided)
    chosen: list[Drawn] = []
    counts = []
    sizes = {stratum: len(tasks) for stratum, tasks in found.items()}
    groups: dict[Hashable, dict[Stratum, int]] = _grouped(sizes, _group(per))
    for strata in groups.values():
        for stratum, places in _share_out(size, strata).items():
            tasks = found[stratum]
            drawn = [tasks[position] for position in sorted(stream.sample(range(len(tasks)), places))]
            chosen += [Drawn(stratum.source, each, _choose_instance(each, stream)) for each in drawn]
            counts.append(StratumCount(stratum, len(tasks), places))
    stream.shuffle(chosen)
    return Draw(chosen, counts)


def allocate(places: int, sizes: Mapping[K, int]) -> dict[K, int]:
    """Return places per group in proportion to the sizes, at least one per group if there are enough places.

    After the first places, each further one goes to the group that is furthest below its proportional share.

    Args:
        places: number of places to give; at most the sum of the sizes is given.
        sizes: number of members of each group, at least one.
    """
    total = sum(sizes.values())
    places = min(places, total)
    given = dict.fromkeys(sizes, 1 if places >= len(sizes) else 0)
    for _ in range(places - sum(given.values())):
        open_groups = (name for name in sizes if given[name] < sizes[name])
        given[max(open_groups, key=lambda name: places * sizes[name] / total - given[name])] += 1
    return given


def _wanted(source: ReportSource, *, accepted: bool | None, rejected: bool | None) -> list[Decided]:
    takes_rejected = source.kind == "file" if rejected is None and accepted is None else bool(rejected)
    takes_accepted = not rejected if accepted is None else accepted
    return [*(source.kept if takes_accepted else ()), *(source.rejected if takes_rejected else ())]


def _stratum(source: int, decided: Decided) -> Stratum:
    if decided.rule:
        return Stratum(source, decided.rule)
    task = decided.task
    profile = task.lineage.profile if task.lineage else ""
    return Stratum(
        source, "", profile, SAID[task.is_classification], any(each.input.strip() for each in task.instances)
    )


def _group(per: Per) -> Callable[[Stratum], Hashable]:
    return {
        "sample": lambda _stratum: 0,
        "source": lambda stratum: stratum.source,
        "rule": lambda stratum: stratum.rule,
    }[per]


def _share_out(size: int, strata: Mapping[Stratum, int]) -> dict[Stratum, int]:
    """Return the places of each stratum: shared first among sources, then within each source."""
    by_source = _grouped(strata, lambda stratum: stratum.source)
    of_source = allocate(size, {source: sum(sizes.values()) for source, sizes in by_source.items()})
    return {
        stratum: places
        for source, sizes in by_source.items()
        for stratum, places in allocate(of_source[source], sizes).items()
    }


def _grouped(sizes: Mapping[Stratum, int], group: Callable[[Stratum], Any]) -> dict[Any, dict[Stratum, int]]:
    groups: dict[Any, dict[Stratum, int]] = {}
    for stratum, size in sizes.items():
        groups.setdefault(group(stratum), {})[stratum] = size
    return groups


def _choose_instance(decided: Decided, stream: random.Random) -> int | None:
    """Return the position of one random instance of a task, as in Self-Instruct's review; None without instances."""
    count = len(decided.task.instances)
    return stream.randrange(count) if count else None
