"""Whatever befalls a run, in whatever order, its pool is a beginning of the pool of the run that nothing befell.

Hypothesis draws what happens: sessions that end well, engines that die with requests in flight, signals, crashes at a
statement of SQLite, the ledger decided again, the run taken over into a new one, exports. A crash is had by putting
back the files as they stood before the statement: what a killed process leaves. `test_kills.py` kills real ones.
"""

import gc
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from rich.console import Console
from typer.testing import CliRunner

from selfinstruct_local.cli import app
from selfinstruct_local.config.loading import load_settings
from selfinstruct_local.engines import Completion, FinishReason, Request, RequestKey
from selfinstruct_local.errors import EngineDeadError
from selfinstruct_local.generate.create import open_run
from selfinstruct_local.generate.display import RunDisplay
from selfinstruct_local.generate.run import EXPORT, run
from selfinstruct_local.generate.scheduler import MAX_TRIES
from selfinstruct_local.generate.settings import GenerateSettings
from selfinstruct_local.io.interrupt import Interrupt
from selfinstruct_local.io.reader import alpaca_records
from selfinstruct_local.runs.store import DATABASE, RunStore
from selfinstruct_local.seeds import seed_file
from selfinstruct_local.task import Task
from tests.generate.test_run import MODEL
from tests.kernels.oracles import SOAK
from tests.scripted_engine import ScriptedEngine, answer

MOST = 90  # accepted tasks of a run
ORDERS = st.integers(0, 5)


class Engine(ScriptedEngine):
    """Calls something before each answer, and aborts no request more often than it is asked again."""

    def __init__(self, before: Callable[[], None] = lambda: None, **how: Any) -> None:
        super().__init__(**how)
        self._before = before
        self._aborted: Counter[RequestKey] = Counter()

    def _answer(self, request: Request) -> Completion:
        self._before()
        given = super()._answer(request)
        if given.finish_reason is not FinishReason.ABORT:
            return given
        self._aborted[request.key] += 1
        return given if self._aborted[request.key] < MAX_TRIES else answer(request)


def chosen(profile: str, num: int) -> GenerateSettings:
    return load_settings(GenerateSettings, None, {"num": num, "window": 8, "patience": 60, "profile": profile})


def session(
    folder: Path,
    profile: str,
    num: int,
    engine: Engine,
    interrupt: Interrupt | None = None,
    trace: Callable[[str], None] | None = None,
) -> str:
    """One start of the run; gives how it ended."""
    with RunStore(folder) as store:
        store._db.set_trace_callback(trace)
        seeds = open_run(store, chosen(profile, num), MODEL, [seed_file()])
        display = RunDisplay(Console(quiet=True), store.totals(), num)
        return run(store, chosen(profile, num), seeds, lambda: engine, display, interrupt or Interrupt()).reason


def accepted(folder: Path) -> list[Task]:
    with RunStore(folder, read_only=True) as store:
        return list(store.accepted())


def rows(folder: Path, query: str) -> list[Any]:
    database = sqlite3.connect(folder / DATABASE)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


@cache
def straight(profile: str) -> tuple[list[Task], list[Any]]:
    """Pool and ledger of a run that nothing befell, longer than any here."""
    with tempfile.TemporaryDirectory() as name:
        session(Path(name), profile, MOST + 20, Engine())
        return accepted(Path(name)), rows(Path(name), "SELECT * FROM candidates ORDER BY job, position")


class Befallen(RuleBasedStateMachine):
    """A run, and what happens to it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.folder = self.place / "run-0"
        self.copies = 0
        self.num = 5
        self.profile = "alpaca"

    @initialize(profile=st.sampled_from(["alpaca", "self-instruct"]))
    def choose(self, profile: str) -> None:
        self.profile = profile

    @property
    def begun(self) -> bool:
        """Whether its settings are fixed: a crash may have come before."""
        database = self.folder / DATABASE
        return database.exists() and bool(rows(self.folder, "PRAGMA user_version")[0][0]) and bool(self.facts())

    def facts(self) -> list[Any]:
        return rows(self.folder, "SELECT * FROM facts")

    def stored(self) -> tuple[int, set[RequestKey]]:
        """How many jobs are decided, and the keys of the completions that wait for it."""
        if not self.begun:
            return 0, set()
        (jobs,) = rows(self.folder, "SELECT count(*) FROM jobs")[0]
        waiting = rows(self.folder, f"SELECT job, stage, branch FROM completions WHERE job >= {jobs}")  # noqa: S608
        return jobs, {RequestKey(*key) for key in waiting}

    def go_on(self, engine: Engine, **how: Any) -> str:
        """A session; asks for nothing that was stored before it."""
        jobs, waiting = self.stored()
        try:
            return session(self.folder, self.profile, self.num, engine, **how)
        except EngineDeadError:
            return "died"
        finally:
            asked = {request.key for request in engine.asked}
            assert not asked & waiting, "a stored completion was asked for again"
            assert all(key.job >= jobs for key in asked), "a decided job was asked for again"

    @rule(more=st.integers(0, 12), in_flight=st.integers(1, 6), order=ORDERS)
    def generate(self, more: int, in_flight: int, order: int) -> None:
        self.num = min(self.num + more, MOST)
        assert self.go_on(Engine(in_flight=in_flight, order=order)) == "done"
        assert len(accepted(self.folder)) >= self.num
        self.exported_whole()

    @rule(more=st.integers(0, 12), answers=st.integers(0, 15), in_flight=st.integers(1, 6), order=ORDERS)
    def lose_the_engine(self, more: int, answers: int, in_flight: int, order: int) -> None:
        self.num = min(self.num + more, MOST)
        assert self.go_on(Engine(in_flight=in_flight, order=order, die_after=answers)) in {"died", "done"}

    @rule(more=st.integers(0, 12), every=st.integers(2, 9), order=ORDERS)
    def abort_some(self, more: int, every: int, order: int) -> None:
        self.num = min(self.num + more, MOST)
        assert self.go_on(Engine(order=order, abort_every=every)) == "done"

    @rule(more=st.integers(1, 12), answers=st.integers(0, 15), order=ORDERS)
    def send_a_signal(self, more: int, answers: int, order: int) -> None:
        self.num = min(self.num + more, MOST)
        interrupt = Interrupt()
        left = iter(range(answers))

        def count() -> None:
            if next(left, None) is None:
                interrupt.signum = signal.SIGTERM

        assert self.go_on(Engine(count, order=order), interrupt=interrupt) in {"interrupted", "done"}
        self.exported_whole()

    @rule(more=st.integers(1, 12), statement=st.integers(1, 120), in_flight=st.integers(1, 6), order=ORDERS)
    def crash(self, more: int, statement: int, in_flight: int, order: int) -> None:
        """The process is gone before its n-th statement; what it did after that never was."""
        self.num = min(self.num + more, MOST)
        left = self.place / "left"
        engine = Engine(in_flight=in_flight, order=order)
        seen = 0

        def trace(_statement: str) -> None:
            nonlocal seen
            seen += 1
            if seen == statement:
                shutil.copytree(self.folder, left)
                engine._die_after = 0

        self.go_on(engine, trace=trace)
        if left.exists():
            shutil.rmtree(self.folder)
            left.rename(self.folder)

    @precondition(lambda self: self.begun)
    @rule()
    def decide_again(self) -> None:
        """`filter --run` under the same rules comes to the same tasks, and leaves the run as it is."""
        before = (self.folder / DATABASE).read_bytes()
        summary = self.filtered("--out", self.place / "again.json")
        assert (self.place / "again.json").read_bytes() == self.export_of(accepted(self.folder))
        assert (summary["kept"], summary["rejected"]) == self.verdicts()
        assert (self.folder / DATABASE).read_bytes() == before

    @precondition(lambda self: self.begun)
    @rule(threshold=st.sampled_from([0.3, 0.5, 0.9]))
    def decide_otherwise(self, threshold: float) -> None:
        """Under another threshold every candidate is kept or rejected, and the stricter keep no more."""
        loose = self.filtered("--out", self.place / "loose.json", "--threshold", 1.0)
        summary = self.filtered("--out", self.place / "other.json", "--threshold", threshold)
        kept, rejected = self.verdicts()
        assert summary["read"] == summary["kept"] + sum(summary["rejected"].values()) == kept + sum(rejected.values())
        assert summary["kept"] <= loose["kept"]

    @precondition(lambda self: self.begun)
    @rule()
    def take_it_over(self) -> None:
        """`filter --run --into` makes a run that goes on as the old one would have."""
        self.copies += 1
        new = self.place / f"run-{self.copies}"
        self.filtered("--into", new)
        assert accepted(new) == accepted(self.folder)
        self.folder = new

    @precondition(lambda self: self.begun and bool(accepted(self.folder)))
    @rule(form=st.sampled_from(["alpaca", "self-instruct", "sharegpt"]))
    def export(self, form: str) -> None:
        written = []
        for name in ("one.jsonl", "two.jsonl"):
            done = CliRunner().invoke(
                app, ["export", str(self.folder), "--format", form, "--out", str(self.place / name)]
            )
            assert done.exit_code == 0, (done.output, done.exception)
            written.append((self.place / name).read_bytes())
        assert written[0] == written[1]
        assert written[0]

    @invariant()
    def the_pool_is_a_beginning_of_the_straight_one(self) -> None:
        if not self.begun:
            return
        pool = accepted(self.folder)
        assert pool == straight(self.profile)[0][: len(pool)]
        assert len({task.id for task in pool}) == len({task.instruction for task in pool}) == len(pool)

    @invariant()
    def the_ledger_adds_up(self) -> None:
        if not self.begun:
            return
        assert rows(self.folder, "PRAGMA integrity_check") == [("ok",)]
        jobs = rows(self.folder, "SELECT job, accepted FROM jobs ORDER BY job")
        assert [job for job, _ in jobs] == list(range(len(jobs)))
        counted = dict(rows(self.folder, "SELECT job, sum(rule = '') FROM candidates GROUP BY job"))
        assert all(counted.get(job, 0) == count for job, count in jobs)
        with RunStore(self.folder, read_only=True) as store:
            totals = store.totals()
        kept, rejected = self.verdicts()
        assert (totals.jobs, totals.accepted, totals.rejected) == (len(jobs), kept, rejected)

    def teardown(self) -> None:
        """Goes on to the end: the whole ledger is the straight one's, neighbours and scores too."""
        try:
            if self.begun:
                assert self.go_on(Engine(in_flight=3, order=1)) == "done"
                found = rows(self.folder, "SELECT * FROM candidates ORDER BY job, position")
                assert found == straight(self.profile)[1][: len(found)]
                self.exported_whole()
        finally:
            shutil.rmtree(self.place)

    def exported_whole(self) -> None:
        assert (self.folder / EXPORT).read_bytes() == self.export_of(accepted(self.folder))

    def export_of(self, tasks: list[Task]) -> bytes:
        records = [orjson.dumps(record, option=orjson.OPT_INDENT_2) for record in alpaca_records(tasks)]
        return b"[\n" + b",\n".join(records) + b"\n]\n" if records else b"[]\n"

    def verdicts(self) -> tuple[int, dict[str, int]]:
        counts = dict(rows(self.folder, "SELECT rule, count(*) FROM candidates GROUP BY rule"))
        return counts.pop("", 0), counts

    def filtered(self, *flags: object) -> dict[str, Any]:
        words = ["filter", "--run", str(self.folder), "--json", *map(str, flags)]
        done = CliRunner().invoke(app, words)
        gc.enable()  # the command needs none, this process does
        assert done.exit_code == 0, (done.output, done.exception)
        summary: dict[str, Any] = orjson.loads(done.stdout)
        return summary


TestBefallen = Befallen.TestCase
TestBefallen.settings = settings(
    max_examples=500 if SOAK else 10,
    stateful_step_count=20 if SOAK else 10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
