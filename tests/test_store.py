import sqlite3
from pathlib import Path

import pytest

from selfinstruct_local.engine import Completion, FinishReason, RequestKey
from selfinstruct_local.errors import WrongUseError
from selfinstruct_local.store import DATABASE, MIGRATIONS, Candidate, DecidedJob, RunStore
from selfinstruct_local.tasks import Instance, Lineage, Task, Verdict

SEEDS = [Task("Name a river.", (Instance("", "Nile"), Instance("Africa", "Congo")), False, "s1")]


def candidate(name: str, *, keep: bool) -> Candidate:
    verdict = Verdict(keep=True, score=0.5) if keep else Verdict(keep=False, rule="too_short", detail="1 word")
    return Candidate(Task.single(name, "in", "out"), verdict, "s1" if keep else None)


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    facts = {"profile": "alpaca", "threshold": 0.7, "window": 8}
    with RunStore(tmp_path) as store:
        assert store.facts() == {}
        store.create(facts, SEEDS)
        session = store.begin_session({"num": 2}, {"engine": "scripted"})
        store.add_completions(
            session, [Completion(RequestKey(k, "tasks", 0), "x", FinishReason.STOP, 5, 3) for k in (1, 0)]
        )
        store.commit_jobs(
            [DecidedJob(0, ["s1"], [candidate("One task here", keep=True), candidate("Two", keep=False)])]
        )
    with RunStore(tmp_path, read_only=True) as store:
        assert store.facts() == facts
        assert store.seeds() == SEEDS
        assert list(store.undecided_completions()) == [RequestKey(1, "tasks", 0)]
        assert store.pool_sizes() == [0, 1]
        (task,) = store.accepted()
        assert task == Task("One task here", (Instance("in", "out"),), None, "gen-0-0", Lineage("alpaca", 0, ("s1",)))
        totals = store.totals()
        assert (totals.jobs, totals.accepted, totals.rejected) == (1, 1, {"too_short": 1})
        assert (totals.completions, totals.completion_tokens) == (2, 6)


def test_a_job_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        broken = Candidate(Task.single("text", "in", "out"), Verdict(keep=True, detail=None))  # type: ignore[arg-type]
        with pytest.raises(sqlite3.IntegrityError):
            store.commit_jobs([DecidedJob(0, [], [candidate("One task here", keep=True), broken])])
        assert store.pool_sizes() == [0]
        assert list(store.accepted()) == []


def test_a_second_process_is_turned_away(tmp_path: Path) -> None:
    with RunStore(tmp_path), pytest.raises(WrongUseError, match="another process is at work"):
        RunStore(tmp_path)
    RunStore(tmp_path).close()


def test_a_missing_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(WrongUseError, match="no run there"):
        RunStore(tmp_path / "none", read_only=True)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    RunStore(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(WrongUseError, match="newer version"):
        RunStore(tmp_path)
    with pytest.raises(WrongUseError, match="newer version"):
        RunStore(tmp_path)  # and not "another process": the lock was let go


def test_a_corrupt_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    garbage = b"SQLite format 3\0" + b"\xff" * 5000
    (tmp_path / DATABASE).write_bytes(garbage)
    with pytest.raises(WrongUseError, match="cannot be read"):
        RunStore(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == garbage


def test_commits_survive_power_cuts(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        modes = [store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert modes == ["wal", 2]  # 2 is FULL
