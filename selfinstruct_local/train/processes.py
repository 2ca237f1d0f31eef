"""The processes of one training, one a device: which of them this is, and starting them on one machine.

Whoever starts them (`--nproc`, torchrun, accelerate launch) says so by PyTorch's environment variables `RANK`,
`LOCAL_RANK` and `WORLD_SIZE`. The first process alone speaks and writes what is not sharded.
"""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from selfinstruct_local.errors import RunError
from selfinstruct_local.io.interrupt import SIGNAL_EXIT

# A signal lets each process end its step and write its shards, and this long may that take before it is killed.
_SHUTDOWN_SECONDS = 900
# A signal to the whole group reaches each process from the system, and once more from the launcher that got it too.
_ECHO_SECONDS = 5.0


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that speaks and writes for all."""
    return os.environ.get("RANK", "0") == "0"


def are_started() -> bool:
    """Whether a launcher has started this process as one of several."""
    return "WORLD_SIZE" in os.environ


def echo_seconds() -> float:
    """How long the same signal may come again and be no second one (see `interrupt.interruptible`)."""
    return _ECHO_SECONDS if are_started() else 0.0


def start(arguments: Sequence[str], count: int) -> int:
    """Runs the same command in `count` processes on this machine, until all have ended or one has failed.

    PyTorch's elastic launcher does it, which is what torchrun is made of: signals are passed on, and when one process
    fails the others are ended.

    Args:
        arguments: of the command line, without the program.
        count: processes.

    Returns:
        The exit code: 0, that of the process that failed first, or 128 and the number of the signal.

    Raises:
        RunError: one was killed.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what went wrong is said by who failed
    # They talk on this machine alone. A core each: more threads than cores would wait for each other.
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
            return failure.exitcode  # it has said why
        message = (
            f"process {rank} of {count} was ended by {signal.Signals(-failure.exitcode).name}, as the system does when "
            "memory runs out; the same command goes on from the last checkpoint"
        )
        raise RunError(message) from error
    except SignalException as error:
        return SIGNAL_EXIT + signal.Signals(error.sigval).value
    return 0
