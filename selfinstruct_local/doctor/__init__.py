"""Checks whether a machine is ready for long runs: software, hardware, models, storage and network.

`examine` takes a `Wish`, which describes the planned work, and yields one `Finding` per check. No model is loaded and
the machine is not changed, except for temporary files that are deleted again.
"""

from selfinstruct_local.doctor.examine import Wish, examine
from selfinstruct_local.doctor.finding import Finding

__all__ = ["Finding", "Wish", "examine"]
