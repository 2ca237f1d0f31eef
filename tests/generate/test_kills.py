"""A run that is killed again and again ends as the one that never was. Real processes, real SIGKILL."""

import multiprocessing
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from selfinstruct_local.generate.run import EXPORT
from selfinstruct_local.runs.store import DATABASE
from tests.generate.killed_run import ASKED, POINTS, REPEATED_POINTS, generate
from tests.kernels.oracles import SOAK

# `make soak`: 200 kills; `make test`: every named point once, and a few at random.
KILLS_AT_POINTS = 100 if SOAK else len(POINTS)
RANDOM_KILLS = 100 if SOAK else 8
KILLS_PER_RUN = 8

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.generate.killed_run"])


def session(folder: Path, *arguments: Any, kill_after: float | None = None) -> bool:
    """Starts a session of the run, to be killed so long after the engine was first asked; says whether it was."""
    asked_before = asked_bytes(folder)
    process = CONTEXT.Process(target=generate, args=(folder, *arguments))
    process.start()
    if kill_after is not None:
        while process.is_alive() and asked_bytes(folder) == asked_before:
            time.sleep(0.005)
        time.sleep(kill_after)
        process.kill()
    process.join(120)
    assert process.exitcode in {0, -signal.SIGKILL}, process.exitcode
    return process.exitcode != 0


def asked_bytes(folder: Path) -> int:
    log = folder / ASKED
    return log.stat().st_size if log.exists() else 0


def rows(folder: Path, query: str) -> list[Any]:
    """Reads the database as the killed process left it, without this project's code."""
    database = sqlite3.connect(folder / DATABASE)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


class Survivor:
    """A run under fire, and what must hold of it after each kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stored: set[tuple[Any, ...]] = set()
        self.asked = 0

    def check(self) -> None:
        """The file is sound, what was stored is there, and what was stored was not asked for again."""
        if not (self.folder / DATABASE).exists() or not rows(self.folder, "PRAGMA user_version")[0][0]:
            return
        assert rows(self.folder, "PRAGMA integrity_check") == [("ok",)]
        assert rows(self.folder, "PRAGMA foreign_key_check") == []
        asked = (self.folder / ASKED).read_text().splitlines() if (self.folder / ASKED).exists() else []
        fresh = {tuple(line.split()) for line in asked[self.asked :]}
        assert not fresh & {tuple(map(str, key)) for key in self.stored}, "a stored completion was asked for again"
        self.asked = len(asked)
        stored = set(rows(self.folder, "SELECT job, stage, branch FROM completions"))
        assert stored >= self.stored, "a stored completion is lost"
        self.stored = stored
        jobs = rows(self.folder, "SELECT job, accepted FROM jobs ORDER BY job")
        assert [job for job, _ in jobs] == list(range(len(jobs)))
        accepted = rows(
            self.folder, "SELECT job, sum(rule = '') FROM jobs JOIN candidates USING (job) GROUP BY job ORDER BY job"
        )
        assert {job: count for job, count in jobs if count} == {job: count for job, count in accepted if count}
        if (self.folder / EXPORT).exists():
            assert orjson.loads((self.folder / EXPORT).read_bytes())  # the old file or the new, never half of one


def ledger(folder: Path) -> list[Any]:
    return rows(folder, "SELECT * FROM candidates ORDER BY job, position")


@pytest.fixture(scope="module", params=["alpaca", "self-instruct"])
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The profile, and a run of it that was never killed."""
    folder = tmp_path_factory.mktemp("straight")
    assert not session(folder, request.param, 0)
    return request.param, folder


def finish_and_compare(survivor: Survivor, straight: tuple[str, Path]) -> None:
    profile, reference = straight
    assert not session(survivor.folder, profile, 3)
    survivor.check()
    assert ledger(survivor.folder) == ledger(reference)
    assert (survivor.folder / EXPORT).read_bytes() == (reference / EXPORT).read_bytes()
    # Exporting again gives the same bytes.
    assert not session(survivor.folder, profile, 4)
    assert (survivor.folder / EXPORT).read_bytes() == (reference / EXPORT).read_bytes()


def test_kills_at_every_named_point(straight: tuple[str, Path], tmp_path: Path) -> None:
    stream = random.Random(7)
    points = [POINTS[number % len(POINTS)] for number in range(KILLS_AT_POINTS // 2)]
    if straight[0] == "self-instruct":
        points = [POINTS[-1 - number % len(POINTS)] for number in range(KILLS_AT_POINTS - KILLS_AT_POINTS // 2)]
    for number, point in enumerate(points):
        survivor = Survivor(tmp_path / f"{number}")
        occurrence = stream.randrange(1, 9) if point in REPEATED_POINTS else 1
        assert session(survivor.folder, straight[0], number, 0.0, point, occurrence), point
        survivor.check()
        if point in REPEATED_POINTS:  # and once more, in the session that goes on from there
            session(survivor.folder, straight[0], number + 1, 0.0, point, occurrence)
            survivor.check()
        finish_and_compare(survivor, straight)


def test_kills_at_random_moments(straight: tuple[str, Path], tmp_path: Path) -> None:
    stream = random.Random(11)
    kills = 0
    progress = set()
    while kills < RANDOM_KILLS // 2:
        survivor = Survivor(tmp_path / f"{kills}")
        for order in range(KILLS_PER_RUN):
            kills += session(survivor.folder, straight[0], order, 0.01, kill_after=stream.uniform(0.0, 0.15))
            survivor.check()
            progress.add(len(survivor.stored))
        finish_and_compare(survivor, straight)
    assert len(progress) > RANDOM_KILLS // 8, "the kills did not fall into the work of the runs"
