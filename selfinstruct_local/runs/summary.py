"""Lists runs and summarizes a run, for `selfinstruct runs`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from selfinstruct_local.io.progress import format_seconds
from selfinstruct_local.runs.store import DATABASE, RunStore, Session, Totals

Table = tuple[str, list[tuple[str, str]]]


class RunSummary(NamedTuple):
    """The settings and results of a run.

    Attributes:
        run: folder of the run.
        facts: deciding settings and fingerprints; empty for an imported run that was not started.
        seeds: number of seed tasks.
        totals: counts over all sessions.
        sessions: all sessions, oldest first.
        at_work: whether a process is writing to the run now.
    """

    run: str
    facts: dict[str, Any]
    seeds: int
    totals: Totals
    sessions: list[Session]
    at_work: bool

    @property
    def state(self) -> str:
        """The state of the run: running, not started, or how the last session ended."""
        if self.at_work:
            return "running"
        if not self.sessions:
            return "not started"
        return self.sessions[-1].outcome or "killed"

    def tables(self) -> Iterator[Table]:
        """Yield tables for the terminal: titles with rows of names and values."""
        totals = self.totals
        yield (
            f"{self.run}: {self.state}",
            [
                ("accepted", f"{totals.accepted}" + (f" ({totals.inherited} inherited)" if totals.inherited else "")),
                ("rejected", str(sum(totals.rejected.values()))),
                ("jobs", str(totals.jobs)),
                ("seeds", str(self.seeds)),
                ("completions", str(totals.completions)),
                ("tokens generated", str(totals.completion_tokens)),
                ("prompt tokens", str(totals.prompt_tokens)),
                ("cached prompt tokens", _share(totals.cached_tokens, totals.prompt_tokens)),
                ("tasks per 1,000 tokens", _yield(totals)),
            ],
        )
        candidates = totals.accepted - totals.inherited + sum(totals.rejected.values())
        yield (
            "candidates by verdict",
            [
                (name, f"{count:>8}  {_share(count, candidates)}")
                for name, count in [("accepted", totals.accepted - totals.inherited), *totals.rejected.items()]
            ],
        )
        long = {"model_files", "prompt_texts"}
        yield "settings", [(name, str(value)) for name, value in sorted(self.facts.items()) if name not in long]
        yield "sessions", [(each.started_at, _describe(each)) for each in self.sessions]


def find_runs(folder: Path) -> list[Path]:
    """Return the run folders below `folder`, sorted by name."""
    return sorted(path.parent for path in folder.rglob(DATABASE))


def summarize(run: Path) -> RunSummary:
    """Return the summary of a run, which can be running.

    Raises:
        UsageError: the folder is not a run, or it cannot be read.
    """
    with RunStore(run, read_only=True) as store:
        totals, sessions = store.totals(), store.sessions()
        return RunSummary(str(run), store.facts(), len(store.seeds()), totals, sessions, store.at_work())


def _describe(session: Session) -> str:
    engine = " ".join(str(value) for name, value in session.engine.items() if name in {"engine", "version"})
    if session.seconds is None:
        return f"{engine}: no end recorded (killed, or running)"
    if session.measured is None:  # from a version without measurements
        return f"{engine}: {session.outcome} after {format_seconds(session.seconds)}"
    stages = session.measured.get("stages", {}).values()
    tokens = sum(counts["completion_tokens"] for counts in stages)
    pace = tokens / session.seconds if session.seconds else 0.0
    return (
        f"{engine}: {session.outcome} after {format_seconds(session.seconds)}, {tokens} tokens, {pace:.0f} tokens/s, "
        f"{session.measured.get('idle_share', 0):.0%} of the engine's slots idle"
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _yield(totals: Totals) -> str:
    own = totals.accepted - totals.inherited
    return f"{1000 * own / totals.completion_tokens:.2f}" if totals.completion_tokens else "-"
