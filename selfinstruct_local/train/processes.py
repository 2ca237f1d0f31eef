"""The processes of one training, one per device: the rank of this process, and a launcher for one machine.

The launcher (`--nproc`, torchrun, accelerate launch) sets PyTorch's environment variables `RANK`, `LOCAL_RANK` and
`WORLD_SIZE`. Only the first process prints, and writes files that are not sharded.
"""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from selfinstruct_local.errors import RunError
from selfinstruct_local.io.interrupt import SIGNAL_EXIT

# After a signal, each process has this long to end its step and write its shards before it is killed.
_SHUTDOWN_SECONDS = 900
# A signal to the process group reaches each process twice: from the system, and forwarded by the launcher.
_ECHO_SECONDS = 5.0


def world_size() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this is the process that prints and writes for all."""
    return os.environ.get("RANK", "0") == "0"


def are_started() -> bool:
    """Return whether a launcher started this process as one of several."""
    return "WORLD_SIZE" in os.environ


def echo_seconds() -> float:
    """Return how many seconds a repeated signal counts as the same one (see `interrupt.interruptible`)."""
    return _ECHO_SECONDS if are_started() else 0.0


def start(arguments: Sequence[str], count: int) -> int:
    """Run the same command in `count` processes on this machine and return the exit code.

    Uses PyTorch's elastic launcher, as torchrun does: it forwards signals, and ends the other processes when one fails.

    Args:
        arguments: command-line arguments, without the program.
        count: number of processes.

    Returns:
        0, the exit code of the process that failed first, or 128 plus the signal number.

    Raises:
        RunError: a process was killed by a signal.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the failed process reports its error
    # Communication stays on this machine. The cores are divided over the processes, to avoid oversubscription.
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "selfinstruct_local", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode  # it has reported the cause
        message = (
            f"process {rank} of {count} was ended by {signal.Signals(-failure.exitcode).name}, which the system sends "
            "when memory runs out; re-run the same command to resume from the last checkpoint"
        )
        raise RunError(message) from error
    except SignalException as error:
        return SIGNAL_EXIT + signal.Signals(error.sigval).value
    return 0
