"""The run store: the SQLite database of a run, its only authoritative file.

It contains the settings and fingerprints, the seeds and inherited tasks as they were, every raw completion as it
arrived, and every candidate with its verdict, accepted tasks included. All other files are exports that can be
recreated.
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
