import errno
import fcntl
import os
import re
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from selfinstruct_local.engines import Completion, FinishReason, RequestKey
from selfinstruct_local.errors import COMMITTED_STANDS, UsageError
from selfinstruct_local.runs.store import DATABASE, MIGRATIONS, Candidate, DecidedJob, RunStore
from selfinstruct_local.runs.store.schema import lock_run
from selfinstruct_local.task import Instance, Lineage, Task, Verdict

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
    with RunStore(tmp_path), pytest.raises(UsageError, match="another process is using this run"):
        RunStore(tmp_path)
    RunStore(tmp_path).close()


def test_a_missing_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.sqlite is missing"):
        RunStore(tmp_path / "none", read_only=True)


def make_schema_2(folder: Path) -> None:
    """A run as the version before measured anything left it: one decided job, and a completion that waits."""
    db = sqlite3.connect(folder / DATABASE)
    for script in MIGRATIONS[:2]:
        db.executescript(script)
    seed = '{"id":"s1","instruction":"Name a river.","instances":[["","Nile"],["Africa","Congo"]],'
    seed += '"is_classification":false}'
    rows: dict[str, list[tuple[Any, ...]]] = {
        "facts": [("profile", '"alpaca"'), ("threshold", "0.7")],
        "seeds": [(0, seed)],
        "sessions": [(1, "2024-01-01T00:00:00Z", "{}", '{"engine":"old"}', 1.5, "interrupted", None)],
        "completions": [
            (0, "tasks", 0, 1, "old", "stop", 5, 3, 2),
            (1, "tasks", 0, 1, "waiting", "stop", 6, 4, None),
        ],
        "jobs": [(0, '["s1"]', 1, 1, 5, 3, 2)],
        "candidates": [
            (0, 0, "One task here", '[["in","out"]]', None, "", "", "s1", 0.5),
            (0, 1, "Two", '[["in","out"]]', 0, "too_short", "1 word", None, None),
        ],
    }
    for table, values in rows.items():
        marks = ", ".join("?" * len(values[0]))
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608 - our own names
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_run_of_schema_2_reads_as_before_and_goes_on(tmp_path: Path, read_only: bool) -> None:  # noqa: FBT001
    make_schema_2(tmp_path)
    with RunStore(tmp_path, read_only=read_only) as store:
        assert store.facts() == {"profile": "alpaca", "threshold": 0.7}
        assert store.seeds() == SEEDS
        assert store.sessions()[0].outcome == "interrupted"
        key = RequestKey(1, "tasks", 0)
        waiting = Completion(key, "waiting", FinishReason.STOP, 6, 4)
        assert store.undecided_completions() == {key: waiting}
        (task,) = store.accepted()
        assert task == Task("One task here", (Instance("in", "out"),), None, "gen-0-0", Lineage("alpaca", 0, ("s1",)))
        assert store.pool()[0] == task
        (job,) = store.ledger()
        assert job.counts == (1, 5, 3, 2)
        assert [each.task.measures for each in job.decided.candidates] == [None, None]
        assert job.decided.candidates[1].verdict == Verdict(keep=False, rule="too_short", detail="1 word")
        totals = store.totals()
        assert (totals.jobs, totals.accepted, totals.completions, totals.cached_tokens) == (1, 1, 2, 2)
    with RunStore(tmp_path) as store:
        assert store._db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        measured = candidate("Three tasks here", keep=True)
        measured = measured._replace(task=measured.task._replace(measures={"confidence": -0.25}))
        store.commit_jobs([DecidedJob(1, ["s1"], [measured])])
        assert [task.measures for task in store.accepted()] == [None, {"confidence": -0.25}]


@pytest.mark.parametrize("read_only", [True, False])
def test_a_run_of_schema_2_that_is_held_is_left_as_it_is(tmp_path: Path, read_only: bool) -> None:  # noqa: FBT001
    make_schema_2(tmp_path)
    before = (tmp_path / DATABASE).read_bytes()
    lock = lock_run(tmp_path)
    with pytest.raises(UsageError, match="another process is using"):
        RunStore(tmp_path, read_only=read_only)
    os.close(lock)
    assert (tmp_path / DATABASE).read_bytes() == before
    RunStore(tmp_path, read_only=read_only).close()


def test_a_reader_makes_no_tables_in_a_database_that_is_just_being_made(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    with pytest.raises(UsageError, match=r"run\.sqlite is empty"):
        RunStore(tmp_path, read_only=True)
    assert (tmp_path / DATABASE).read_bytes() == b""
    RunStore(tmp_path).close()
    RunStore(tmp_path, read_only=True).close()


def test_readers_beside_the_making_of_a_run_find_none_or_a_whole_one(tmp_path: Path) -> None:
    for number in range(10):
        folder = tmp_path / str(number)
        said: set[str] = set()
        made = threading.Event()

        def read(folder: Path = folder, said: set[str] = said, made: threading.Event = made) -> None:
            while True:
                last = made.is_set()
                try:
                    with RunStore(folder, read_only=True) as store:
                        assert store.totals().jobs == 0
                except UsageError as error:
                    said.add(re.sub(r"\).*", ")", str(error)))
                else:
                    if last:
                        return

        with ThreadPoolExecutor(2) as readers:
            done = [readers.submit(read) for _ in range(2)]
            try:
                RunStore(folder).close()
            finally:
                made.set()
            for each in done:
                each.result()
        assert said <= {
            f"--run {folder}: not a run (run.sqlite is missing)",
            f"--run {folder}: not a run yet (run.sqlite is empty)",
        }


def on_read_only_disk(folder: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Our command, where the disk that holds the folder cannot be written to."""
    mount = f'mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec "$@"'
    started = ["unshare", "-rm", "sh", "-c", mount, "sh"]
    if subprocess.run([*started, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no disk was mounted: this machine lets a test mount no file system (unshare -rm)")
    command = [*started, sys.executable, "-m", "selfinstruct_local", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_finished_run_is_read_where_nobody_may_write(tmp_path: Path) -> None:
    run = tmp_path / "disk" / "run"
    with RunStore(run) as store:
        store.create({"profile": "alpaca"}, SEEDS)
        store.commit_jobs([DecidedJob(0, ["s1"], [candidate("One task here", keep=True)])])
    shown = on_read_only_disk(run.parent, "runs", "show", run)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "accepted" in shown.stdout
    out = tmp_path / "out.jsonl"
    exported = on_read_only_disk(run.parent, "export", run, "--out", out)
    assert exported.returncode == 0, exported.stderr
    assert "One task here" in out.read_text()


def test_a_run_that_cannot_be_read_where_nobody_may_write_says_so(tmp_path: Path) -> None:
    run = tmp_path / "disk" / "run"
    run.mkdir(parents=True)
    make_schema_2(run)
    old = on_read_only_disk(run.parent, "runs", "show", run)
    assert old.returncode == 2
    assert "older version of this program (schema 2, now" in old.stderr
    RunStore(run).close()
    (run / f"{DATABASE}-wal").touch()  # as a writer that was killed leaves it
    torn = on_read_only_disk(run.parent, "runs", "show", run)
    assert torn.returncode == 1
    assert "run.sqlite cannot be read" in torn.stderr
    assert COMMITTED_STANDS not in torn.stderr


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunStore(tmp_path).close()
    descriptors = set(Path("/proc/self/fd").iterdir())

    def without_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with pytest.raises(UsageError) as caught:
        RunStore(tmp_path)
    assert str(caught.value) == (
        f"--run {tmp_path}: its file system has no file locks (no locks available); name a folder on a local disk"
    )
    assert set(Path("/proc/self/fd").iterdir()) == descriptors
    with RunStore(tmp_path, read_only=True) as store:
        assert not store.at_work()


def test_what_was_measured_reads_back(tmp_path: Path) -> None:
    measures = {"confidence": -0.123456789, "judge.clear": 4.0}
    keys = [RequestKey(number, "question", 0) for number in (0, 1, 2)]
    with RunStore(tmp_path) as store:
        store.create({"profile": "magpie"}, SEEDS)
        session = store.begin_session({}, {})
        told = [
            Completion(key, "x", FinishReason.STOP, 5, 3, 1, confidence)
            for key, confidence in zip(keys, (-1.5, None, 0.0), strict=True)
        ]
        store.add_completions(session, told)
        kept, turned_away, empty = (candidate("One task here", keep=keep) for keep in (True, False, True))
        kept = kept._replace(task=kept.task._replace(measures=measures))
        turned_away = turned_away._replace(task=turned_away.task._replace(measures={"judge.correct": 1.0}))
        empty = empty._replace(task=empty.task._replace(measures={}))
        assert store.undecided_completions() == {each.key: each for each in told}
        store.commit_jobs([DecidedJob(0, ["s1"], [kept, turned_away, empty])])
    with RunStore(tmp_path, read_only=True) as store:
        assert [each.confidence for each in store.undecided_completions().values()] == [None, 0.0]
        assert [task.measures for task in store.accepted()] == [measures, None]
        assert [task.measures for task in store.pool()] == [measures, None]
        (job,) = store.ledger()
        assert [each.task.measures for each in job.decided.candidates] == [measures, {"judge.correct": 1.0}, None]
    with RunStore(tmp_path / "copy") as copy:
        copy.create({"profile": "magpie"}, SEEDS)
        copy.copy_jobs([job])
        assert list(copy.ledger()) == [job]


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    RunStore(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(UsageError, match="newer version"):
        RunStore(tmp_path)
    with pytest.raises(UsageError, match="newer version"):
        RunStore(tmp_path)  # and not "another process": the lock was let go


def test_a_corrupt_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    garbage = b"SQLite format 3\0" + b"\xff" * 5000
    (tmp_path / DATABASE).write_bytes(garbage)
    with pytest.raises(UsageError, match="cannot be read"):
        RunStore(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == garbage


def test_commits_survive_power_cuts(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        modes = [store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert modes == ["wal", 2]  # 2 is FULL
