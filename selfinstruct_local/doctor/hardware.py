"""GPUs and their driver, main memory, shared memory, open files.

Leans on torch where it is installed, on `nvidia-smi` where it is on the PATH, and on /proc.
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
# bfloat16 in hardware: Ampere and newer.
BF16 = (8, 0)
# vLLM takes 90 % of a card unless told otherwise (ServeSettings.gpu_memory_share).
CARD_SHARE = 0.9
# The embedded model in vLLM: libraries, weights in float32 and 2 GiB of KV cache; an assumption with some room.
MIN_MEMORY = 4 * GIB
# vLLM speaks with its workers through rings of 10 chunks of 16 MiB (shm_broadcast.py, VLLM_MQ_MAX_CHUNK_BYTES_MB), one
# a group of workers, and NCCL and torch's data loaders want room beside them. Docker gives a container 64 MiB.
MIN_SHARED = GIB
# `--in-flight` goes to 4,096, each request has a connection, and the program has files of its own (engine/lanes.py).
MIN_FILES = 4096 + 128
# A control group without a limit of memory tells a number near 2**63.
UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as torch sees it.

    Attributes:
        name: as the driver tells it.
        total: bytes of its memory.
        free: of these, bytes that nobody uses.
        capability: CUDA's compute capability, major and minor.
        oldest: the oldest capability that this torch has kernels for.
    """

    name: str
    total: int
    free: int
    capability: tuple[int, int]
    oldest: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Torch:
    """What torch says of GPUs.

    Attributes:
        version: empty where it is not installed.
        cuda: version of CUDA that it was built with; empty for a CPU build.
        cards: those that can be used.
        fault: why it cannot be imported, or cannot ask a card.
    """

    version: str = ""
    cuda: str = ""
    cards: tuple[Card, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Driver:
    """What `nvidia-smi` says.

    Attributes:
        version: of the driver.
        names: of the cards.
        fault: why it says nothing of use.
    """

    version: str = ""
    names: tuple[str, ...] = ()
    fault: str = ""


def read_torch() -> Torch:
    """Asks torch for the cards; a card is opened to tell its free memory."""
    try:
        import torch
    except ModuleNotFoundError as error:
        return Torch(fault="" if error.name == "torch" else f"torch needs {error.name}, which is missing")
    except (ImportError, OSError) as error:  # a library of CUDA that is not there, or is another version's
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
    """Asks `nvidia-smi`; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Driver(fault=f"nvidia-smi gave no answer in {DRIVER_SECONDS:.0f} s")
    except OSError as error:
        return Driver(fault=f"nvidia-smi cannot be started ({(error.strerror or str(error)).lower()})")
    rows = [line.split(", ", 1) for line in done.stdout.splitlines() if ", " in line]
    if done.returncode or not rows:
        said = (done.stdout or done.stderr).strip().splitlines()
        return Driver(fault=f"nvidia-smi: {said[0] if said else f'ended with {done.returncode}'}")
    return Driver(rows[0][0], tuple(row[1] for row in rows))


def check_gpus(driver: Driver | None, torch: Torch) -> Iterator[Finding]:
    """The driver, and each card that torch can use; or why it can use none."""
    if driver is not None and driver.fault:
        yield Finding("driver", "fail", driver.fault, "look into 'dmesg | grep NVRM'; load or install the driver anew")
    elif driver is not None:
        yield Finding("driver", "ok", f"NVIDIA {driver.version}, {len(driver.names)} GPU(s): {', '.join(driver.names)}")
    if torch.fault:
        mend = "install the pinned torch, and a driver for its CUDA"
        yield Finding("gpu", "fail", f"torch: {torch.fault}", mend)
    elif driver is not None and driver.names and not torch.cards:
        yield _unused(driver, torch)
    elif not torch.cards:
        detail = (
            "none: seeds, filter, export and reports work, small models generate and train; "
            "models of 7B are too slow for a run or a training"
        )
        yield Finding("gpu", "warn", detail, "where one is built in, install NVIDIA's driver")
    for number, card in enumerate(torch.cards):
        yield judge_card(number, card)


def _unused(driver: Driver, torch: Torch) -> Finding:
    if not torch.version:
        return Finding("gpu", "warn", "torch is not installed, so no GPU is used", "install requirements/gpu.txt")
    if not torch.cuda:
        detail = f"{len(driver.names)} GPU(s) are here, and torch {torch.version} is built for CPUs"
        return Finding("gpu", "fail", detail, "install the CUDA builds of torch and vllm")
    detail = f"torch {torch.version} finds none of {len(driver.names)} GPU(s)"
    mend = f"a driver for CUDA {torch.cuda}, rights on /dev/nvidia*, or an unset CUDA_VISIBLE_DEVICES"
    return Finding("gpu", "fail", detail, mend)


def judge_card(number: int, card: Card) -> Finding:
    """Whether a card can be used, and used in full."""
    check = f"gpu {number}"
    capability = ".".join(map(str, card.capability))
    detail = f"{card.name}, {card.total / GIB:.1f} GiB, {card.free / GIB:.1f} free, compute capability {capability}"
    if card.capability < card.oldest:
        oldest = ".".join(map(str, card.oldest))
        return Finding(check, "fail", f"{detail}: this torch has kernels for {oldest} and newer", "an older torch")
    if card.free < CARD_SHARE * card.total:
        mend = "end what uses it ('nvidia-smi' lists it), or lower --gpu-memory-share"
        return Finding(check, "warn", f"{detail}: vLLM asks for {CARD_SHARE:.0%} of it", mend)
    if card.capability < BF16:
        return Finding(check, "warn", f"{detail}: no bfloat16", "give --dtype float16, and precision: fp32 in training")
    return Finding(check, "ok", detail)


def read_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of main memory that can be had: what the kernel says is available, less where a control group limits it.

    Args:
        proc: where `meminfo` stands.
        groups: where the limits of a container stand, of cgroup v2 or v1.
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
            # What files were read lies in memory until it is wanted.
            used = int((folder / usage).read_text(encoding="ascii")) - int(counts.get(cached, 0))
            available = min(available, int(most) - used)
    return max(0, available)


def check_memory(available: int) -> Finding:
    """Main memory for the least of this program's work."""
    detail = f"{available / GIB:.1f} GiB of main memory can be had"
    if available < MIN_MEMORY:
        mend = f"free some: vLLM with the embedded model wants {MIN_MEMORY // GIB} GiB"
        return Finding("memory", "warn", detail, mend)
    return Finding("memory", "ok", detail)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108 - where Linux has it
    """Shared memory, through which vLLM's processes and NCCL speak."""
    mend = "give the container more (docker run --shm-size=8g), or mount it: mount -o remount,size=8g /dev/shm"
    if not folder.is_dir():
        return Finding("shared memory", "fail", f"{folder} is missing, and vLLM's processes speak through it", mend)
    size = shutil.disk_usage(folder)
    detail = f"{folder}: {size.free / GIB:.2f} of {size.total / GIB:.2f} GiB free"
    if size.free < MIN_SHARED:
        return Finding("shared memory", "warn", detail, mend)
    return Finding("shared memory", "ok", detail)


def check_open_files() -> Finding:
    """How many files a process may open: as many as requests in flight, at most, and some more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "no limit")
    detail = f"{hard:,} at most"
    if hard < MIN_FILES:
        mend = f"raise the hard limit (ulimit -Hn, limits.conf), or keep --in-flight below {max(1, hard - 128)}"
        return Finding("open files", "warn", detail, mend)
    return Finding("open files", "ok", detail)
