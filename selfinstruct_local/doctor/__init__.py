"""Whether a machine is fit for a week of work: what is installed, what it can hold, and what would stand in the way.

`examine` takes a `Wish`, what the work will use, and gives a `Finding` a line. Nothing is changed on the machine and no
model is loaded; what is written goes into a temporary folder that is deleted.
"""

from selfinstruct_local.doctor.examine import Wish, examine
from selfinstruct_local.doctor.finding import Finding

__all__ = ["Finding", "Wish", "examine"]
