"""A Ray session, started on this machine or connected to a cluster, without access to any outside network.

Requires the extra `ray`.
"""

import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from selfinstruct_local.errors import RunError, UsageError, UserFacingError
from selfinstruct_local.io.interrupt import SIGNAL_EXIT
from selfinstruct_local.offline import go_offline

KNOCK_SECONDS = 10


@contextlib.contextmanager
def ray_session(address: str | None = None, workers: int | None = None) -> Iterator[int]:
    """Connect to Ray for the block and yield its number of processors.

    Args:
        address: a running cluster that includes this machine (`auto` or `HOST:PORT`); None starts Ray on this machine,
            only for the block.
        workers: processors for a Ray started here; None allows all processors of this process.

    Raises:
        UsageError: Ray is not installed, or nothing answers at the address.
        RunError: Ray gave up the work.
    """
    go_offline()
    try:
        import ray
        from ray.data import DataContext
        from ray.data.context import ShuffleStrategy
        from ray.exceptions import RayError
    except ImportError as error:
        message = f"--engine ray: {error.name or 'ray'} is missing; install this package with its extra 'ray'"
        raise UsageError(message) from error
    if address:
        _check_answers(address)
    # Its errors are also raised as exceptions.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        if address:
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            # Set explicitly, so that Ray does not look for an address that other machines could reach.
            here = "127.0.0.1"
            ray.init(
                "local",  # never a Ray that already runs on this machine
                num_cpus=workers,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _node_ip_address=here,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        message = f"--ray-address {address or 'none'}: {str(error).splitlines()[0]}; see 'ray status'"
        raise UsageError(message) from error
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    # The tasks are stateless, so that a lost worker costs only its task.
    context.shuffle_strategy = ShuffleStrategy.SHUFFLE_V2
    # Ray reports dead workers on stdout, which is for results; it reports the last ones during shutdown.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            with _plain_sigterm():
                yield max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
        except RayError as error:
            if explained := _for_the_user(error):
                raise explained from error
            raise
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise an error if nothing answers at HOST:PORT; Ray itself would try for most of a minute.

    Raises:
        UsageError: the address has another form, or nothing answers.
    """
    if "://" in address:
        message = f"--ray-address {address}: give auto or HOST:PORT, on a machine of the cluster"
        raise UsageError(message)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return  # `auto` and other names, which Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        message = f"--ray-address {address}: nothing answers there ({error}); see 'ray status' on its first machine"
        raise UsageError(message) from error


@contextlib.contextmanager
def _plain_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block with the exit code of a signal; Ray's own handler prints a stack trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(SIGNAL_EXIT + signum)

    rays = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, rays)


def _for_the_user(error: BaseException) -> UserFacingError | None:
    """Return a worker's error for the user, or that Ray gave up; None for a defect of this program in a worker."""
    from ray.exceptions import RayTaskError

    if isinstance(error, RayTaskError):
        return error.cause if isinstance(error.cause, UserFacingError) else None
    why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return RunError(f"Ray gave up ({why}); nothing was written")
