"""Out-of-memory errors, during loading or in a step, as one line that names the flags to change."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from selfinstruct_local.errors import OutOfMemoryError
from selfinstruct_local.train.settings import TrainSettings

# Messages of PyTorch's CPU allocator and kernels, CUDA, cuBLAS and NCCL. PyTorch's GPU allocator raises its own error
# class.
_SAID = re.compile(
    r"not enough memory|can't allocate memory|Cannot allocate memory|bad_alloc|could not create a memory"
    r"|out of memory|ALLOC_FAILED"
)


@contextmanager
def naming_flags(settings: TrainSettings) -> Iterator[None]:
    """Convert out-of-memory errors inside the block to an OutOfMemoryError that names the flags to change.

    Raises:
        OutOfMemoryError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        lacks = isinstance(error, torch.OutOfMemoryError | MemoryError) or _SAID.search(str(error))
        if not lacks:
            raise
        message = (
            f"memory ran out ({str(error).splitlines()[0][:120]}); change {', or '.join(_changes(settings))}; "
            "--dry-run shows the memory each needs; changed settings need another --out"
        )
        raise OutOfMemoryError(message) from error


def _changes(settings: TrainSettings) -> Iterator[str]:
    if settings.batch_size > 1:
        half = settings.batch_size // 2
        accumulation = (
            "" if settings.global_batch_size else f" --gradient-accumulation {settings.gradient_accumulation * 2}"
        )
        yield f"--batch-size {half}{accumulation}"
    on = torch.cuda.is_available() if settings.gradient_checkpointing is None else settings.gradient_checkpointing
    if not on:
        yield "--gradient-checkpointing"
    yield f"--max-length below {settings.max_length}"
    if settings.method == "full":
        yield "--method lora"
    if not settings.fsdp and settings.method != "qlora":
        yield "--fsdp with --nproc"
