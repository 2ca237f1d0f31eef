"""Shared functions of the benchmark scripts: description of the machine, tables, and the sections of RESULTS.md."""

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
# Thread counts of all libraries with their own thread pool; scripts import this module before numpy.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def pin_threads(count: int) -> None:
    """Limit every library to `count` threads; call before importing any of them."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(count)


def machine() -> str:
    """Return processor, cores, memory and versions, on one line."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = re.search(r"model name\s*: (.*)", cpuinfo)
    flags = re.search(r"flags\s*: (.*)", cpuinfo)
    vectors = [flag for flag in ("avx2", "avx512f") if flags and flag in flags[1].split()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{package} {version(package)}" for package in ("numpy", "numba", "rapidfuzz", "datasketch"))
    return (
        f"{name[1] if name else platform.processor()} ({', '.join(vectors)}), {len(os.sched_getaffinity(0))} cores, "
        f"{memory:.0f} GiB, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {packages}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def write_section(title: str, body: str) -> None:
    """Write `body` under the heading `title` of RESULTS.md, replacing that section, and print it."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    section = f"## {title}\n\n{body.strip()}\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(text):
        text = pattern.sub(lambda _match: section + "\n", text)
    else:
        text = text.rstrip() + "\n\n" + section
    RESULTS.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(f"## {title}\n\n{body}\n")


def seconds(value: float) -> str:
    """Return a readable time: `0.115 s`, `42.1 s`, `12.3 h`."""
    if value >= 3600:  # noqa: PLR2004 - an hour
        return f"{value / 3600:.1f} h"
    return f"{value:.1f} s" if value >= 10 else f"{value:.3f} s"  # noqa: PLR2004
