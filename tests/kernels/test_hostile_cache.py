"""Fault 44: a kernel cache that cannot be written, or where code was planted; numba unpickles what it loads."""

import os
import pickle
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.test_cache import USE, run


class Evil:
    """Unpickling this makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def planted(source: Path, target: Path, marker: Path) -> None:
    """Fills `target` with a cache as `source` is, whose every file makes `marker` when it is loaded."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    for path in target.rglob("*.nb[ci]"):
        path.write_bytes(pickle.dumps(Evil(marker)))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder as this user fills it."""
    place = tmp_path_factory.mktemp("real")
    assert run(USE, place).returncode == 0
    return place / ".cache" / "selfinstruct-local" / "kernels"


@pytest.fixture
def fallback(home: Path, real: Path) -> Path:
    """The same where it is looked for when all other folders will not do: nothing needs to be compiled."""
    folder = home / "tmp" / f"selfinstruct-local-{os.getuid()}" / "kernels"
    shutil.copytree(real, folder)
    folder.chmod(0o700)
    return folder


def test_what_is_planted_would_run(home: Path, real: Path) -> None:
    """The faults below are real: in the user's own private folder the planted files are loaded."""
    folder = home / ".cache" / "selfinstruct-local" / "kernels"
    planted(real, folder, home / "ran")
    folder.chmod(0o700)
    assert run(USE, home).returncode == 0
    assert (home / "ran").exists()


@pytest.mark.parametrize("how", ["open", "group", "readable", "link", "open above", "link further in", "linked file"])
@pytest.mark.usefixtures("fallback")
def test_a_planted_cache_is_not_loaded(how: str, home: Path, real: Path) -> None:
    folder = home / ".cache" / "selfinstruct-local" / "kernels"
    elsewhere = home / "elsewhere"
    planted(real, elsewhere, home / "ran")
    elsewhere.chmod(0o700)
    folder.parent.mkdir(parents=True)
    if how == "link":
        folder.symlink_to(elsewhere)
    elif how == "link further in":
        folder.mkdir(mode=0o700)
        (source,) = elsewhere.iterdir()
        (folder / source.name).symlink_to(source)
    elif how == "linked file":
        (source,) = elsewhere.iterdir()
        (folder / source.name).mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)
        for path in source.iterdir():
            (folder / source.name / path.name).symlink_to(path)
    else:
        shutil.copytree(elsewhere, folder)
        folder.chmod({"open": 0o777, "group": 0o770, "readable": 0o705}.get(how, 0o700))
        if how == "open above":
            folder.parent.chmod(0o777)
    done = run(USE, home)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (home / "ran").exists()


@pytest.mark.usefixtures("fallback")
def test_somebody_elses_files_are_not_loaded(home: Path, real: Path) -> None:
    """Files of another user in a folder that has become this user's, and a folder that is another user's."""
    if os.getuid() != 0:
        pytest.skip("somebody else's files need root to be made, which is missing")
    folder = home / ".cache" / "selfinstruct-local" / "kernels"
    planted(real, folder, home / "ran")
    folder.chmod(0o700)
    for path in folder.rglob("*.nb[ci]"):
        os.chown(path, 12345, 12345)
    assert run(USE, home).returncode == 0
    for path in folder.rglob("*.nb[ci]"):
        os.chown(path, 0, 0)
    os.chown(folder, 12345, 12345)
    assert run(USE, home).returncode == 0
    assert not (home / "ran").exists()


@pytest.mark.parametrize("environment", [{"SELFINSTRUCT_CACHE": "."}, {"XDG_CACHE_HOME": ".cache"}, {"TMPDIR": "."}])
def test_nothing_is_loaded_from_the_working_folder(environment: dict[str, str], home: Path, real: Path) -> None:
    """A run that came by mail, with a cache in each place where numba or a relative path would look."""
    runs = home / "run"
    name = f"selfinstruct-local-{os.getuid()}"
    for place in ("__pycache__", "kernels", ".cache/selfinstruct-local/kernels", f"{name}/kernels"):
        planted(real, runs / place, home / "ran")
        (runs / place).chmod(0o700)
    if "TMPDIR" in environment:
        (home / ".cache").write_text("")  # no folder can be made here
    else:
        shutil.copytree(real, home / ".cache" / "selfinstruct-local" / "kernels")
        (home / ".cache" / "selfinstruct-local" / "kernels").chmod(0o700)
    done = run(f"import os; os.chdir({str(runs)!r})\n{USE}", home, **environment)
    assert done.returncode == 0, done.stderr
    assert not (home / "ran").exists()


def test_a_cache_that_cannot_be_written_costs_only_the_cache() -> None:
    """Every temporary folder is mounted read-only, for root too, with what lies there; the working folder is open."""
    closed = (
        "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp && mount --bind /var/tmp /var/tmp && "
        "mount -o remount,bind,ro /var/tmp && mount -t tmpfs tmpfs /mnt"
    )
    alone = ["unshare", "-rm", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*alone, closed], check=False).returncode != 0:
        pytest.skip("folders that nobody may write to need unshare -rm, which is missing")
    script = f"{closed} && cd /mnt && {sys.executable} -c {shlex.quote(USE)} && ls -A"
    unset = ("SELFINSTRUCT_CACHE", "XDG_CACHE_HOME", "TEMP", "TMP")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [*alone, script],
        env={**environment, "HOME": "/proc", "TMPDIR": "/proc"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "no private cache folder" in done.stderr
