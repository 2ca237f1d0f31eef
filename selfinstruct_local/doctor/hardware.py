"""Checks of GPUs and their driver, main memory, shared memory and open files.

Uses torch if it is installed, `nvidia-smi` if it is on the PATH, and /proc.
"""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selfinstruct_local.doctor.finding import Finding

GIB = 1 << 30
DRIVER_SECONDS = 30.0
# Compute capability with bfloat16 in hardware: Ampere and newer.
BF16 = (8, 0)
# vLLM uses 90 % of a GPU's memory by default (ServeSettings.gpu_memory_share).
CARD_SHARE = 0.9
# The embedded model in vLLM: libraries, weights in float32 and 2 GiB of KV cache; an assumption with a margin.
MIN_MEMORY = 4 * GIB
# vLLM communicates with its workers through ring buffers of 10 chunks of 16 MiB (shm_broadcast.py,
# VLLM_MQ_MAX_CHUNK_BYTES_MB), one per group of workers; NCCL and torch's data loaders need shared memory too. Docker
# gives a container 64 MiB.
MIN_SHARED = GIB
# `--in-flight` allows up to 4,096 requests with one connection each; the program opens further files of its own.
MIN_FILES = 4096 + 128
# A control group without a memory limit reports a number near 2**63.
UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, as torch reports it.

    Attributes:
        name: name reported by the driver.
        total: memory in bytes.
        free: free memory in bytes.
        capability: CUDA compute capability, major and minor.
        oldest: the oldest compute capability that this torch has kernels for.
    """

    name: str
    total: int
    free: int
    capability: tuple[int, int]
    oldest: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Torch:
    """The installed torch and the GPUs it can use.

    Attributes:
        version: version of torch; empty if it is not installed.
        cuda: CUDA version of the build; empty for a CPU build.
        cards: usable GPUs.
        fault: why torch cannot be imported or cannot query a GPU; empty if it can.
    """

    version: str = ""
    cuda: str = ""
    cards: tuple[Card, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Driver:
    """The output of `nvidia-smi`.

    Attributes:
        version: version of the driver.
        names: names of the GPUs.
        fault: why `nvidia-smi` failed; empty if it did not.
    """

    version: str = ""
    names: tuple[str, ...] = ()
    fault: str = ""


def read_torch() -> Torch:
    """Return what torch reports; creates a CUDA context on each GPU to read its free memory."""
    try:
        import torch
    except ModuleNotFoundError as error:
        return Torch(fault="" if error.name == "torch" else f"torch needs {error.name}, which is missing")
    except (ImportError, OSError) as error:  # a CUDA library that is missing or of another version
        return Torch(fault=str(error).splitlines()[0])
    version, cuda = str(torch.__version__), str(torch.version.cuda or "")
    try:
        cards = tuple(_read_card(number) for number in range(torch.cuda.device_count()))
    except RuntimeError as error:
        return Torch(version, cuda, fault=str(error).splitlines()[0])
    return Torch(version, cuda, cards)


def _read_card(number: int) -> Card:
    import torch

    free, total = torch.cuda.mem_get_info(number)
    built = [each.removeprefix("sm_").rstrip("af") for each in torch.cuda.get_arch_list() if each.startswith("sm_")]
    oldest = min(((int(each[:-1]), int(each[-1])) for each in built), default=(0, 0))
    return Card(torch.cuda.get_device_name(number), total, free, torch.cuda.get_device_capability(number), oldest)


def read_driver() -> Driver | None:
    """Return what `nvidia-smi` reports, or None if it is not installed."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Driver(fault=f"nvidia-smi did not respond within {DRIVER_SECONDS:.0f} s")
    except OSError as error:
        return Driver(fault=f"nvidia-smi cannot be started ({(error.strerror or str(error)).lower()})")
    rows = [line.split(", ", 1) for line in done.stdout.splitlines() if ", " in line]
    if done.returncode or not rows:
        said = (done.stdout or done.stderr).strip().splitlines()
        return Driver(fault=f"nvidia-smi: {said[0] if said else f'exit code {done.returncode}'}")
    return Driver(rows[0][0], tuple(row[1] for row in rows))


def check_gpus(driver: Driver | None, torch: Torch) -> Iterator[Finding]:
    """Yield the findings for the driver and for each usable GPU, or why torch can use none."""
    if driver is not None and driver.fault:
        yield Finding("driver", "fail", driver.fault, "check 'dmesg | grep NVRM'; reload or reinstall the driver")
    elif driver is not None:
        yield Finding("driver", "ok", f"NVIDIA {driver.version}, {len(driver.names)} GPU(s): {', '.join(driver.names)}")
    if torch.fault:
        mend = "install the pinned torch, and a driver for its CUDA"
        yield Finding("gpu", "fail", f"torch: {torch.fault}", mend)
    elif driver is not None and driver.names and not torch.cards:
        yield _unused(driver, torch)
    elif not torch.cards:
        detail = (
            "none: seeds, filter, export and reports work, and small models can generate and train; "
            "7B models are too slow"
        )
        yield Finding("gpu", "warn", detail, "if the machine has a GPU, install NVIDIA's driver")
    for number, card in enumerate(torch.cards):
        yield judge_card(number, card)


def _unused(driver: Driver, torch: Torch) -> Finding:
    if not torch.version:
        return Finding("gpu", "warn", "torch is not installed, so no GPU is used", "install requirements/gpu.txt")
    if not torch.cuda:
        detail = f"the machine has {len(driver.names)} GPU(s), but torch {torch.version} is a CPU build"
        return Finding("gpu", "fail", detail, "install the CUDA builds of torch and vllm")
    detail = f"torch {torch.version} finds none of {len(driver.names)} GPU(s)"
    mend = f"install a driver for CUDA {torch.cuda}, check permissions of /dev/nvidia*, or unset CUDA_VISIBLE_DEVICES"
    return Finding("gpu", "fail", detail, mend)


def judge_card(number: int, card: Card) -> Finding:
    """Return the finding for one GPU: supported by torch, mostly free, and with bfloat16."""
    check = f"gpu {number}"
    capability = ".".join(map(str, card.capability))
    detail = f"{card.name}, {card.total / GIB:.1f} GiB, {card.free / GIB:.1f} free, compute capability {capability}"
    if card.capability < card.oldest:
        oldest = ".".join(map(str, card.oldest))
        return Finding(check, "fail", f"{detail}: this torch supports {oldest} and newer", "install an older torch")
    if card.free < CARD_SHARE * card.total:
        mend = "stop the processes that use it ('nvidia-smi' lists them), or lower --gpu-memory-share"
        return Finding(check, "warn", f"{detail}: vLLM needs {CARD_SHARE:.0%} of its memory", mend)
    if card.capability < BF16:
        return Finding(check, "warn", f"{detail}: no bfloat16", "use --dtype float16, and precision: fp32 for training")
    return Finding(check, "ok", detail)


def read_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the available main memory in bytes: what the kernel reports, or less if a control group limits it.

    Args:
        proc: folder of `meminfo`.
        groups: folder with a container's limits, cgroup v2 or v1.
    """
    rows = dict(line.split(":", 1) for line in (proc / "meminfo").read_text(encoding="ascii").splitlines())
    available = int(rows["MemAvailable"].split()[0]) << 10
    for folder, limit, usage, cached in (
        (groups, "memory.max", "memory.current", "inactive_file"),
        (groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if not all((folder / name).is_file() for name in (limit, usage, "memory.stat")):
            continue
        most = (folder / limit).read_text(encoding="ascii").strip()
        if most.isdecimal() and int(most) < UNLIMITED:
            counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            # Inactive page cache counts as used, but is freed when memory is needed.
            used = int((folder / usage).read_text(encoding="ascii")) - int(counts.get(cached, 0))
            available = min(available, int(most) - used)
    return max(0, available)


def check_memory(available: int) -> Finding:
    """Check that there is enough main memory for the embedded model."""
    detail = f"{available / GIB:.1f} GiB of main memory available"
    if available < MIN_MEMORY:
        mend = f"free memory: vLLM with the embedded model needs {MIN_MEMORY // GIB} GiB"
        return Finding("memory", "warn", detail, mend)
    return Finding("memory", "ok", detail)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108 - its path on Linux
    """Check the shared memory, which vLLM's processes and NCCL use to communicate."""
    mend = "give the container more (docker run --shm-size=8g), or run 'mount -o remount,size=8g /dev/shm'"
    if not folder.is_dir():
        return Finding("shared memory", "fail", f"{folder} is missing; vLLM's processes need it to communicate", mend)
    size = shutil.disk_usage(folder)
    detail = f"{folder}: {size.free / GIB:.2f} of {size.total / GIB:.2f} GiB free"
    if size.free < MIN_SHARED:
        return Finding("shared memory", "warn", detail, mend)
    return Finding("shared memory", "ok", detail)


def check_open_files() -> Finding:
    """Check the limit of open files: a process needs one per request in flight, plus a margin."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "no limit")
    detail = f"limit of {hard:,}"
    if hard < MIN_FILES:
        mend = f"raise the hard limit (ulimit -Hn, limits.conf), or keep --in-flight below {max(1, hard - 128)}"
        return Finding("open files", "warn", detail, mend)
    return Finding("open files", "ok", detail)
