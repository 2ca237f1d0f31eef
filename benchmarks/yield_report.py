"""What the runs of the yield benchmark gave: the counts of an arm, and the tables and shown tasks made of them.

Leans on the run store, the verbs of the report (spaCy) and the intervals of `rates.py`. Nothing is generated here.
"""

import math
import random
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rates import dispersion, mean, median, poisson_rate, poisson_ratio
from results import machine, table
from yield_arms import BASELINE, IN_FLIGHT, OURS, SHORT_WINDOW, Arm

from selfinstruct_local.config import GenerateSettings
from selfinstruct_local.filter.decide import NOT_NOVEL
from selfinstruct_local.filter.rules import apply_rules
from selfinstruct_local.filter.rulesets import rule_set
from selfinstruct_local.generate.parsing.cases import CONTRADICTION
from selfinstruct_local.generate.parsing.tasks import MALFORMED, REFUSED_PROMPT, UNFINISHED
from selfinstruct_local.generate.profiles.registry import PROFILES
from selfinstruct_local.report.verbs import root_verbs
from selfinstruct_local.store import DATABASE, Candidate, RunStore
from selfinstruct_local.tasks import Task

# Sizes at which diversity is compared, so that a larger pool has no worse neighbours.
EQUAL = 15
SHOWN = 30
SHOWN_SEED = 2024
THROW_AWAY = "throw"  # how a verdict begins that counts a task as worthless
NOT_READ = frozenset({MALFORMED, UNFINISHED, REFUSED_PROMPT, CONTRADICTION})
MEASURED_SETTINGS = (
    "profile",
    "prompt_format",
    "structured",
    "temperature",
    "top_p",
    "max_tokens",
    "tasks_per_prompt",
    "threshold",
    "rules",
    "min_confidence",
    "min_output_confidence",
    "window",
)


class CompletionTokens(NamedTuple):
    """What a completion of a decided job cost."""

    job: int
    stage: str
    branch: int
    tokens: int


class Cost(NamedTuple):
    """Requests and generated tokens."""

    requests: int
    tokens: int


def read_costs(folder: Path) -> list[CompletionTokens]:
    """Of all completions of the decided jobs of a run."""
    with closing(sqlite3.connect(f"{(folder / DATABASE).resolve().as_uri()}?mode=rw", uri=True)) as database:
        rows = database.execute(
            "SELECT job, stage, branch, completion_tokens FROM completions WHERE job IN (SELECT job FROM jobs)"
        )
        return [CompletionTokens(*row) for row in rows]


def published_cost(
    costs: Iterable[CompletionTokens], accepted: set[tuple[int, int]], after_acceptance: Sequence[str]
) -> Cost:
    """The cost without requests that the published program makes for accepted instructions only, and ours for more.

    Args:
        costs: of all completions.
        accepted: job and position of the candidates that joined the pool.
        after_acceptance: stages whose branch is the position of the candidate they were for.
    """
    wanted = [
        each.tokens for each in costs if each.stage not in after_acceptance or (each.job, each.branch) in accepted
    ]
    return Cost(len(wanted), sum(wanted))


@dataclass
class Measured:
    """What is reported of an arm.

    Attributes:
        arm: which.
        settings: it had.
        jobs: decided.
        spent: all that was generated.
        cost: of that, what the published program would have asked for; all of it for our profiles.
        well_formed: candidates that the parser could read.
        passed: of those, the ones the rules let pass.
        pooled: of those, the novel ones.
        accepted: of those, the ones with a worked case, which an export has.
        by_our_rules: of those, the ones that our rules would have let pass too.
        inside: tokens of the texts of accepted tasks.
        verbs: root verbs of accepted instructions, in their order; empty for none.
        dispersion: variance over mean of the accepted tasks of a job; 1 for Poisson.
        tokens_per_second: over all starts that ended in order; nan if none did.
    """

    arm: Arm
    settings: GenerateSettings
    jobs: int
    spent: Cost
    cost: Cost
    well_formed: int
    passed: int
    pooled: int
    accepted: list[Candidate]
    by_our_rules: int
    inside: int
    verbs: list[str]
    dispersion: float
    tokens_per_second: float

    @property
    def thousands(self) -> float:
        """The exposure of its rates: counted tokens in thousands."""
        return self.cost.tokens / 1000


def measure(arm: Arm, folder: Path, settings: GenerateSettings, count_tokens: Callable[[str], int]) -> Measured:
    """Reads a run that is done.

    Args:
        arm: whose run it is.
        folder: of the run.
        settings: of the arm.
        count_tokens: by the tokenizer of the model.
    """
    with RunStore(folder, read_only=True) as store:
        jobs = [job.decided for job in store.ledger()]
        sessions = [each for each in store.sessions() if each.measured]
    candidates = [each for job in jobs for each in job.candidates]
    kept = {(job.number, place) for job in jobs for place, each in enumerate(job.candidates) if each.verdict.keep}
    accepted = [each for each in candidates if is_exported(each)]
    costs = read_costs(folder)
    after = getattr(PROFILES[settings.profile], "after_acceptance", ())
    ours = rule_set("alpaca")
    stages = [stage for each in sessions for stage in (each.measured or {})["stages"].values()]
    elapsed = sum((each.measured or {})["elapsed_seconds"] for each in sessions)
    each_job = [sum(map(is_exported, job.candidates)) for job in jobs]
    return Measured(
        arm=arm,
        settings=settings,
        jobs=len(jobs),
        spent=Cost(len(costs), sum(each.tokens for each in costs)),
        cost=published_cost(costs, kept, after),
        well_formed=sum(each.verdict.rule not in NOT_READ for each in candidates),
        passed=sum(each.verdict.rule in {"", NOT_NOVEL} for each in candidates),
        pooled=len(kept),
        accepted=accepted,
        by_our_rules=sum(apply_rules(ours, each.task).keep for each in accepted),
        inside=sum(count_tokens(text) for each in accepted for text in texts_of(each.task)),
        verbs=[found.verb for found in root_verbs(each.task.instruction for each in accepted)],
        dispersion=dispersion(each_job),
        tokens_per_second=sum(stage["completion_tokens"] for stage in stages) / elapsed if elapsed else math.nan,
    )


def is_exported(candidate: Candidate) -> bool:
    """Whether a candidate is a task of the result: accepted, and not a bare instruction."""
    return candidate.verdict.keep and bool(candidate.task.instances)


def texts_of(task: Task) -> Iterator[str]:
    """All that the model had to write for a task."""
    yield task.instruction
    for case in task.instances:
        yield case.input
        yield case.output


def yield_table(arms: Sequence[Measured]) -> str:
    """Counts and rates, an arm a row."""
    base = next((each for each in arms if each.arm.name == BASELINE), None)
    rows = []
    for each in arms:
        accepted = len(each.accepted)
        ratio = ours = "-"
        if base is not None and base is not each:
            ratio = str(poisson_ratio(accepted, each.thousands, len(base.accepted), base.thousands))
            ours = str(poisson_ratio(each.by_our_rules, each.thousands, base.by_our_rules, base.thousands))
        rows.append(
            (
                f"`{each.arm.name}`",
                each.jobs,
                *(f"{all_of:,}" if all_of == some else f"{all_of:,} ({some:,})" for all_of, some in _costs(each)),
                f"{each.well_formed} ({_number(each.well_formed / each.thousands if each.thousands else math.nan)})",
                each.passed,
                f"{accepted} (of {each.pooled})" if each.pooled != accepted else accepted,
                poisson_rate(accepted, each.thousands),
                ratio,
                each.by_our_rules,
                poisson_rate(each.by_our_rules, each.thousands),
                ours,
            )
        )
    head = (
        "arm",
        "jobs",
        "requests (counted)",
        "tokens (counted)",
        "well-formed (per 1,000 tokens)",
        "pass the rules",
        "accepted",
        "accepted per 1,000 tokens",
        f"over `{BASELINE}`",
        "accepted by our rules too",
        "those per 1,000 tokens",
        f"those over `{BASELINE}`",
    )
    return table(head, rows)


def _costs(each: Measured) -> Iterator[tuple[int, int]]:
    return zip((each.spent.requests, each.spent.tokens), (each.cost.requests, each.cost.tokens), strict=True)


def quality_table(arms: Sequence[Measured]) -> str:
    """What the accepted tasks are like, an arm a row."""
    rows = []
    for each in arms:
        tasks = [candidate.task for candidate in each.accepted]
        scores = [candidate.verdict.score or 0.0 for candidate in each.accepted]
        distinct = len(set(each.verbs) - {""})
        few = min(EQUAL, len(tasks))
        rows.append(
            (
                f"`{each.arm.name}`",
                len(tasks),
                f"{100 * each.inside / each.cost.tokens:.1f} %" if each.cost.tokens else "-",
                _number(median([len(task.instruction.split()) for task in tasks])),
                _number(median([len(task.input.split()) + len(task.output.split()) for task in tasks])),
                distinct,
                _number(100 * distinct / len(tasks) if tasks else math.nan),
                f"{len(set(each.verbs[:EQUAL]) - {''})} of {few}",
                _number(mean(scores)),
                f"{_number(mean(scores[:EQUAL]))} ({few})",
                _number(each.dispersion),
                _number(each.tokens_per_second),
            )
        )
    head = (
        "arm",
        "accepted",
        "tokens inside accepted tasks",
        "words of an instruction",
        "of input and output",
        "root verbs",
        "per 100 accepted",
        f"among the first {EQUAL}",
        "nearest ROUGE-L",
        f"of the first {EQUAL}",
        "variance over mean of accepted a job",
        "tokens/s",
    )
    return table(head, rows)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def settings_table(arms: Sequence[Measured]) -> str:
    """What decides each arm, and when it ends."""
    rows = [
        (f"`{each.arm.name}`", each.arm.end, *(getattr(each.settings, name) for name in MEASURED_SETTINGS))
        for each in arms
    ]
    return table(("arm", "ends at", *(name.replace("_", " ") for name in MEASURED_SETTINGS)), rows)


def shown_tasks(accepted: Sequence[Candidate], verdicts: Mapping[str, str] | None) -> str:
    """Tasks drawn by lot, in full, as a numbered list with a reader's verdicts where there are some.

    Args:
        accepted: to draw from.
        verdicts: by the number in the list; one that begins with `throw` says that the task is worthless.
    """
    drawn = random.Random(SHOWN_SEED).sample(accepted, min(SHOWN, len(accepted)))  # noqa: S311 - a sample to read
    lines = [f"### {len(drawn)} accepted tasks of `{OURS}`, drawn by lot", ""]
    for number, each in enumerate(drawn, start=1):
        parts = [("Instruction", each.task.instruction), ("Input", each.task.input), ("Output", each.task.output)]
        if verdicts is not None:
            parts.append(("Verdict", verdicts.get(str(number), "none yet")))
        indent = " " * len(f"{number}. ")
        texts = [f"**{name}:** {one_line(text) or '(none)'}" for name, text in parts]
        lines.append(f"{number}. " + f"<br>\n{indent}".join(texts))
    if verdicts is None:
        lines += ["", "Verdicts: none yet; a reader's come in by `--verdicts`."]
    else:
        read = [verdicts[str(number)] for number in range(1, len(drawn) + 1) if str(number) in verdicts]
        worthless = sum(verdict.lower().startswith(THROW_AWAY) for verdict in read)
        lines += ["", f"Verdicts: {len(read)} of {len(drawn)} tasks were read, {worthless} of them to throw away."]
    return "\n".join(lines)


def one_line(text: str) -> str:
    """A text as Markdown that shows it as it is, in one line of the source."""
    plain = re.sub(r"([\\`*_\[\]{}#|~$!>+])", r"\\\1", text.strip().replace("&", "&amp;").replace("<", "&lt;"))
    return "<br>".join(plain.splitlines())


ABOUT_YIELD = (
    f"Weights dequantised to float32; {IN_FLIGHT} requests in flight, one engine for all arms, seeds "
    "of the package. Every job that was asked is decided and counted. Well-formed: the parser could read it. "
    "Accepted: passes the rules of its profile, is novel, and has a worked case; in brackets, where it differs, "
    "with the bare instructions of the pool. Tokens and requests in brackets, on which the rates rest: those that "
    "the published program would have asked for, whose classification and cases follow acceptance. Intervals: 95 %,"
    " exact; Poisson rates (Garwood), ratios by the conditional binomial (Clopper-Pearson). Tasks of one completion"
    " are not independent: where the variance over the mean is above 1, the truth is wider. By our rules too: "
    "accepted tasks that also pass the rule set `alpaca` with its default limits, echoes of the prompt aside, "
    "since the published rules let empty outputs pass."
)
ABOUT_QUALITY = (
    "Tokens inside accepted tasks: instruction, inputs and outputs by the model's tokenizer, over the counted "
    "tokens. Words are medians, of a task's first case. Root verbs: lemmas by spaCy's small English model. Nearest "
    "ROUGE-L: mean over accepted tasks of the highest F with a seed or a task accepted before, which grows with "
    f"the pool; so also for the first {EQUAL} alone. Tokens/s: for information alone."
)


def make_report(arms: Sequence[Measured], model: str, verdicts: Mapping[str, str] | None) -> str:
    """The section of RESULTS.md."""
    ours = next((each for each in arms if each.arm.name == OURS), None)
    parts = [
        machine(),
        f"{model}. {ABOUT_YIELD}",
        yield_table(arms),
        ABOUT_QUALITY,
        quality_table(arms),
        f"Settings. A window of {SHORT_WINDOW} jobs lets short runs see their pool; the default is for long ones.",
        settings_table(arms),
    ]
    if ours is not None and ours.accepted:
        parts.append(shown_tasks(ours.accepted, verdicts))
    return "\n\n".join(parts)
