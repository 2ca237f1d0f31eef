"""The run: one SQLite database in the run's folder, and nothing else that counts.

It holds the settings and fingerprints, the seeds and inherited tasks as they were, each raw completion as it arrived,
each candidate with its verdict, and so each accepted task. Files for people are exports and can be made again.
"""

from selfinstruct_local.runs.store.pool import StoredPool
from selfinstruct_local.runs.store.records import (
    Candidate,
    DecidedJob,
    InheritedTask,
    LedgerJob,
    Session,
    Totals,
    candidate_id,
)
from selfinstruct_local.runs.store.run_store import RunStore
from selfinstruct_local.runs.store.schema import DATABASE, MIGRATIONS

__all__ = [
    "DATABASE",
    "MIGRATIONS",
    "Candidate",
    "DecidedJob",
    "InheritedTask",
    "LedgerJob",
    "RunStore",
    "Session",
    "StoredPool",
    "Totals",
    "candidate_id",
]
