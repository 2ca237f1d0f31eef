# ruff: noqa: INP001 - a script next to the locks that it reads
"""Build the offline bundle: one folder with everything that a machine with no network needs. `make bundle` runs it.

The bundle has the wheel of every pin of a lock, the wheel of this package, the embedded model, seeds, prompts and
documentation, checksums of all files, and `install.sh`, which installs from the folder. The wheels are for the Python
and the platform that run this script. Wheels are downloaded by pip, as it is configured.
"""

import argparse
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import typer
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename
from packaging.version import Version

import selfinstruct_local
from selfinstruct_local.errors import RunError, UsageError, UserFacingError
from selfinstruct_local.io.files import check_writable_folder, replace_atomically
from selfinstruct_local.models import ModelFolder, prepare_embedded
from selfinstruct_local.models.folder import MANIFEST
from selfinstruct_local.offline import go_offline

Pins = Mapping[NormalizedName, Version]

ROOT = Path(__file__).resolve().parents[1]
ABOUT, CHECKSUMS, INSTALLER = "about.txt", "MANIFEST.sha256", "install.sh"
# Sources of this package's wheel, and files to read before it is installed.
PACKAGE = "selfinstruct_local"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "kernels", "prompts", "requirements", "seeds")
READABLE = ("README.md", "LICENSE", "docs", "prompts", "seeds")
# Older tags, which do not contain the version of glibc (PEP 600).
OLD_TAGS = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
SHOWN = 4
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")


def main() -> None:
    """Build the bundle that the command line describes; on failure print one line and exit with 1 or 2."""
    parser = argparse.ArgumentParser(description="Put wheels, model and installer into one folder.")
    parser.add_argument("--lock", type=Path, required=True, help="requirements/cpu.txt or requirements/gpu.txt")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle, created if missing")
    parser.add_argument("--torch-index", help="index of PyTorch's CPU wheel, if pip does not find it")
    parser.add_argument("--dry-run", action="store_true", help="print the pins without downloading anything")
    flags = parser.parse_args()
    try:
        pins = read_pins(flags.lock)
        if flags.dry_run:
            for name, version in pins.items():
                typer.echo(f"{name}=={version}")
            typer.echo(f"{len(pins)} wheels for {_made_for()}, into {flags.out}; nothing was downloaded", err=True)
        else:
            make_bundle(flags.lock, pins, flags.out, flags.torch_index)
    except UserFacingError as error:
        typer.echo(f"bundle: {error}", err=True)
        sys.exit(error.exit_code)


def read_pins(lock: Path) -> dict[NormalizedName, Version]:
    """Return the versions that a lock pins, by distribution name.

    Raises:
        UsageError: the file cannot be read, or it pins nothing.
    """
    try:
        pins = _PIN.findall(lock.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"--lock {lock}: cannot be read ({(error.strerror or str(error)).lower()})"
        raise UsageError(message) from error
    if not pins:
        message = f"--lock {lock}: no line 'name==version'; name requirements/cpu.txt or requirements/gpu.txt"
        raise UsageError(message)
    return {canonicalize_name(name): Version(version) for name, version in pins}


def make_bundle(lock: Path, pins: Pins, out: Path, torch_index: str | None) -> None:
    """Fill `out`, checksums last: a bundle without them is unfinished, and the same command resumes it.

    Raises:
        UsageError: `out` holds something else, or cannot be written to; or there is no embedded model.
        RunError: pip did not download a wheel, or a file could not be written.
    """
    check_writable_folder(out, "--out")
    if any(out.iterdir()) and not (out / ABOUT).exists():
        message = f"--out {out}: not empty and not a bundle; name a new or empty folder"
        raise UsageError(message)
    wheels = out / "wheels"
    try:
        (out / CHECKSUMS).unlink(missing_ok=True)
        (out / ABOUT).touch()
        wheels.mkdir(exist_ok=True)
        _fetch(pins, wheels, torch_index)
        _say("building this package's wheel")
        _build_own(wheels)
        _say("copying the model")
        _copy_model(prepare_embedded(), out / "models")
        _copy_readable(lock, out)
        _write_about(lock, wheels, out)
        _say("taking checksums")
        _write_checksums(out)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = f"{error.filename or out}: {reason}; fix that and run the same command again"
        raise RunError(message) from error
    size = sum(path.stat().st_size for path in _files(out))
    typer.echo(f"{out}: {len(pins) + 1} wheels and a model, {size / 1e9:.2f} GB, for {_made_for()}")


def _say(what: str) -> None:
    typer.echo(what, err=True)


def _made_for() -> str:
    return f"{platform.python_implementation()} {_python()} on {sysconfig.get_platform()}"


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _pip(*arguments: object) -> bool:
    """Run pip with its messages on stderr; return whether it succeeded."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode == 0


def _fetch(pins: Pins, wheels: Path, torch_index: str | None) -> None:
    """Download missing wheels, and delete those that are truncated or not pinned.

    Raises:
        RunError: pip did not download a wheel, or could not build one.
    """
    for wheel in wheels.glob("*.whl"):
        name, version, _, _ = parse_wheel_filename(wheel.name)
        # A truncated copy has no zip directory at its end.
        if pins.get(name) != version or not zipfile.is_zipfile(wheel):
            wheel.unlink()
    download = ("download", "--quiet", "--no-deps", "--dest", wheels)
    torch = next((pin for pin in _missing(pins, wheels) if pin.startswith("torch==") and pin.endswith("+cpu")), None)
    if torch is not None and torch_index is not None:
        _say(f"downloading {torch}")
        if not _pip(*download, torch) and not _pip(*download, "--index-url", torch_index, torch):
            message = f"PyTorch's CPU wheel is neither on pip's index nor at {torch_index}; name another --torch-index"
            raise RunError(message)
    missing = _missing(pins, wheels)
    _say(f"downloading {len(missing)} of {len(pins)} wheels; the others are present")
    if missing and not _pip(*download, *missing):
        message = "pip did not download all wheels, see above; run the same command again to resume"
        raise RunError(message)
    for source in [*wheels.glob("*.tar.gz"), *wheels.glob("*.zip")]:
        _say(f"building a wheel from {source.name}")
        if not _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, source):
            message = f"{source.name}: pip could not build a wheel from it, see above"
            raise RunError(message)
        source.unlink()
    missing = _missing(pins, wheels)
    if missing:
        # pip accepts 2.0+cpu for 2.0, so an index with another build ends here.
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        message = f"pip found no wheel of exactly {', '.join(missing[:SHOWN])}{more}; see 'pip config list'"
        raise RunError(message)


def _missing(pins: Pins, wheels: Path) -> list[str]:
    there = {parse_wheel_filename(wheel.name)[:2] for wheel in wheels.glob("*.whl")}
    return [f"{name}=={version}" for name, version in pins.items() if (name, version) not in there]


def _build_own(wheels: Path) -> None:
    # Build from a copy, because files left in build/ by an earlier build would be packed again.
    with tempfile.TemporaryDirectory() as folder:
        for name in (*SOURCES, PACKAGE):
            _copy(ROOT / name, Path(folder) / name, "__pycache__")
        build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels)
        if not _pip(*build, folder):
            message = f"pip could not build the wheel of {ROOT}; see above"
            raise RunError(message)


def _copy(source: Path, target: Path, *left_out: str) -> None:
    """Copy a file or a folder, replacing the target."""
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out))
    else:
        shutil.copy2(source, target)


def _copy_model(model: ModelFolder, models: Path) -> None:
    target = models / model.path.name
    _copy(model.path, target)
    manifest = orjson.loads((target / MANIFEST).read_bytes())
    for name, checksum in manifest["files"].items():
        if _sha256(target / name) != checksum:
            message = f"{model.path / name}: changed since it was prepared; move the folder away and run this again"
            raise RunError(message)


def _copy_readable(lock: Path, out: Path) -> None:
    for name in READABLE:
        if (ROOT / name).exists():
            _copy(ROOT / name, out / name, "__pycache__", "*.py")
    _copy(lock, out / lock.name)
    _copy(Path(__file__).with_name(INSTALLER), out / INSTALLER)


def _write_about(lock: Path, wheels: Path, out: Path) -> None:
    glibc = max(map(_needed_glibc, wheels.glob("*.whl")))
    facts = {
        "version": selfinstruct_local.__version__,
        "lock": lock.name,
        "implementation": platform.python_implementation(),
        "python": _python(),
        "platform": sysconfig.get_platform(),
        "glibc": ".".join(map(str, glibc)),
    }
    (out / ABOUT).write_text("".join(f"{name}={value}\n" for name, value in facts.items()), encoding="utf-8")


def _needed_glibc(wheel: Path) -> tuple[int, int]:
    """Return the lowest glibc version that a wheel's tags require; (0, 0) for a wheel without compiled code."""
    tags = {tag.platform for tag in parse_wheel_filename(wheel.name)[3]}
    versions = [OLD_TAGS[tag.split("_")[0]] for tag in tags if tag.split("_")[0] in OLD_TAGS]
    versions += [(int(match[1]), int(match[2])) for tag in tags if (match := _MANYLINUX.match(tag))]
    if not versions and any(tag.startswith("linux_") for tag in tags):
        major, minor = platform.libc_ver()[1].split(".")[:2]  # compiled here
        return int(major), int(minor)
    return min(versions, default=(0, 0))


def _files(out: Path) -> Iterator[Path]:
    return (path for path in sorted(out.rglob("*")) if path.is_file())


def _write_checksums(out: Path) -> None:
    about = (out / ABOUT).read_text(encoding="utf-8").split()
    lines = [f"# selfinstruct-local for {_made_for()}, checked by install.sh: {' '.join(about)}\n"]
    lines += [f"{_sha256(path)}  {path.relative_to(out).as_posix()}\n" for path in _files(out)]
    with replace_atomically(out / CHECKSUMS) as stream:
        stream.write("".join(lines).encode())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    go_offline()
    main()
